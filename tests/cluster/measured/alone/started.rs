//! When programs were executed, by the agent's record and by containerd's word.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use serde_json::{Value, json};

use crate::bed::process::Running;
use crate::cluster::bed::births::{Bed, containerd_ms, ctr, pod};

/// How far each container's recorded exec is after containerd's `/tasks/start`, ms. It says so once runc has returned,
/// which is a little before or after its child executes the program.
#[derive(Debug)]
pub struct Apart(Vec<f64>);

impl Apart {
    /// Of births that the agent told of, and `ctr events`.
    pub fn of(births: &[Value], events: &Running) -> Apart {
        let started: BTreeMap<String, f64> = events
            .lines()
            .iter()
            .filter(|l| l.text.contains("/tasks/start"))
            .map(|l| {
                let (_, id) = l.text.split_once("\"container_id\":\"").expect("an id");
                (id.split('"').next().unwrap().to_owned(), containerd_ms(&l.text))
            })
            .collect();
        let mut apart = Vec::new();
        for birth in births.iter().filter(|b| b["kernel_gossip.birth.kind"] == "birth") {
            let zero = birth["zero"].as_f64().unwrap();
            let containers = birth["kernel_gossip.birth.certificate"]["containers"].as_array();
            apart.extend(
                containers
                    .into_iter()
                    .flatten()
                    .filter_map(|c| Some(zero + c["execMs"].as_f64()? - started.get(c["id"].as_str()?)?)),
            );
        }
        apart.sort_by(f64::total_cmp);
        Apart(apart)
    }

    pub fn programs(&self) -> usize {
        self.0.len()
    }

    /// With its sign.
    fn median(&self) -> f64 {
        self.0[self.0.len() / 2]
    }

    /// The distance that this share of all does not exceed.
    fn within(&self, share: f64) -> f64 {
        let mut distances: Vec<f64> = self.0.iter().map(|ms| ms.abs()).collect();
        distances.sort_by(f64::total_cmp);
        distances[((distances.len() - 1) as f64 * share).round() as usize]
    }
}

impl Display for Apart {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "exec of {} programs after containerd's /tasks/start: ", self.programs())?;
        write!(
            f,
            "{:.2} ms in the median; apart by {:.2} ms in the median, ",
            self.median(),
            self.within(0.5)
        )?;
        write!(f, "{:.2} ms at the 90th percentile, {:.2} ms at most", self.within(0.9), self.within(1.0))
    }
}

#[test]
#[ignore = "needs the cluster: scripts/test cluster"]
fn programs_are_executed_when_containerd_says() {
    let bed = Bed::alone("birth-started", &[]);
    let events = Running::start(&mut ctr(&["events"]));
    // One after the other: none waits for a CPU that another has.
    for n in 0..10 {
        let name = format!("one{n}");
        bed.namespace.apply(&pod(&name, "testbed.local/web:1", json!([])));
        assert_eq!(bed.certificate(&name)["outcome"], "complete");
        bed.namespace.kubectl(&["delete", "--wait=false", "pod", &name]);
    }
    let apart = Apart::of(&bed.births(), &events);
    println!("{apart}");
    assert!(apart.programs() == 10 && apart.within(0.5) <= 5.0, "{apart}: {:?}", apart.0);
}
