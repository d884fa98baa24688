use super::*;

fn field(name: &str) -> &'static Field {
    RESOURCES.iter().flat_map(|r| r.fields).find(|f| f.attribute == Some(name)).expect("a row")
}

#[test]
fn what_cannot_be_is_refused() {
    let percent = field("kernel_gossip.cpu.throttled.percent");
    assert_eq!(percent.checked(Value::Double(100.2)), Ok(Value::Double(100.0)));
    let cores = field("kernel_gossip.cpu.usage");
    assert_eq!(cores.checked(Value::Double(130.0)), Ok(Value::Double(130.0)));
    for (field, x) in
        [(percent, 130.0), (percent, -0.1), (percent, f64::NAN), (cores, 1e10), (cores, f64::NAN)]
    {
        assert!(field.checked(Value::Double(x)).is_err(), "{} {x}", field.field);
    }
    assert_eq!(cores.checked(Value::Double(-1.0)).unwrap_err().to_string(), "must be 0 to 1000000000, is -1");
    let count = field("kernel_gossip.cpu.stall.count");
    assert!(count.checked(Value::Int(7)).is_ok());
    assert!(count.checked(Value::Int(-1)).is_err() && count.checked(Value::Int(i64::MAX)).is_err());
}

/// What is held to its bounds is taken by whoever checks it, and nothing else is lost with what cannot be.
#[test]
fn what_cannot_be_is_left_out_where_it_is_said() {
    let hostile = |field: &'static Field| match field.kind {
        Type::Double => Value::Double(f64::NAN),
        Type::Int => Value::Int(i64::MAX),
        Type::Text => Value::Text("a\u{1b}[2J".repeat(4096)),
    };
    let mut all = SignalEvidence::default().with_all(hostile);
    let texts = all.known().filter(|(field, _)| field.kind == Type::Text).count();
    let numbers = all.known().count() - texts;
    assert_eq!(all.bound(), numbers as u64);
    assert_eq!(all.known().count(), texts);
    for (field, value) in all.known() {
        let Value::Text(text) = &value else { panic!("{value:?}") };
        assert!(text.len() <= field::TEXT_MAX && text.ends_with('…'), "{text}");
        assert_eq!(field.checked(value.clone()), Ok(value), "{}", field.field);
    }
    let good = |field: &'static Field| next_value(&mut Default::default(), field);
    let mut all = SignalEvidence::default().with_all(good);
    let before = all.clone();
    assert_eq!((all.bound(), &all), (0, &before));
}

/// What the struct says on the wire is read back as it was, and no two numbers bear one name.
#[test]
fn every_number_comes_back() {
    let mut next = 0;
    let all = std::cell::RefCell::new(std::collections::BTreeMap::new());
    let sent = SignalEvidence::default().with_all(|field| next_value(&mut all.borrow_mut(), field));
    for (field, value) in sent.known() {
        next += 1;
        assert_eq!(all.borrow().get(field.attribute.expect("sent")), Some(&value), "{}", field.field);
    }
    assert_eq!(next, all.borrow().len());
    let mut back = SignalEvidence::default();
    back.read(|_, name| Ok::<_, ()>(all.borrow().get(name).cloned())).expect("read");
    assert_eq!(back, sent);
}

/// A value that no other field has.
fn next_value(all: &mut std::collections::BTreeMap<&'static str, Value>, field: &'static Field) -> Value {
    let n = all.len() as i64;
    let value = match field.kind {
        Type::Double => Value::Double(n as f64),
        Type::Int => Value::Int(n),
        Type::Text => Value::Text(n.to_string()),
    };
    let before = all.insert(field.attribute.expect("only what is sent is read"), value.clone());
    assert_eq!(before, None, "{:?} is there twice", field.attribute);
    value
}

/// An object is read as what it was written from, under the names of the rows in camelCase.
#[test]
fn an_object_has_every_number() {
    let sent = SignalEvidence::default().with_all(|field| match field.kind {
        Type::Double => Value::Double(1.5),
        Type::Int => Value::Int(7),
        Type::Text => Value::Text("x".into()),
    });
    let json = serde_json::to_value(&sent).expect("JSON");
    assert_eq!(json["cpu"]["throttledPercent"], 1.5);
    assert_eq!(serde_json::from_value::<SignalEvidence>(json).expect("read"), sent);
}

#[test]
fn the_definition_has_the_limits() {
    let schema = schemars::schema_for!(CpuNumbers);
    let property = |name: &str| schema.get("properties").and_then(|p| p.get(name)).expect("there").clone();
    assert_eq!(property("throttledPercent")["maximum"], 100);
    assert_eq!(property("usageCores").get("maximum"), None);
    let schema = schemars::schema_for!(NetworkNumbers);
    assert_eq!(schema.get("properties").expect("some")["reason"]["maxLength"], 256);
}

#[test]
fn what_is_measured_is_rounded() {
    let cpu = CpuNumbers { usage_cores: Some(1.0 / 3.0), stalls: Some(3), ..CpuNumbers::default() };
    let mut numbers = SignalEvidence { cpu: Some(cpu), ..SignalEvidence::default() };
    numbers.round();
    assert_eq!(numbers.cpu().usage_cores, Some(0.333_333));
}
