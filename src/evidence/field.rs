//! What a row of a table of numbers is, and the macro that makes the struct and its table from the same rows.

use std::fmt;

use crate::bounds;

/// The unit of `oom_score_adj`, the one number that may be below zero.
const SCORE: &str = "{adj}";
/// Longest text, bytes.
pub const TEXT_MAX: usize = 256;

/// The type of a number, as OpenTelemetry calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Double,
    Int,
    Text,
}

impl Type {
    /// As a semantic-convention registry has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Type::Double => "double",
            Type::Int => "int",
            Type::Text => "string",
        }
    }
}

/// A number, or a word among them.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Double(f64),
    Int(i64),
    Text(String),
}

/// One number: what it is called and what it means. What it is called in an object is `field` in camelCase.
#[derive(Debug)]
pub struct Field {
    /// The struct's field.
    pub field: &'static str,
    /// UCUM: `%`, `s`, `By`, or what is counted in braces; empty for a word.
    pub unit: &'static str,
    /// What it means: one or more sentences.
    pub brief: &'static str,
    /// The attribute of the OTLP event; `None` for what only others report.
    pub attribute: Option<&'static str>,
    pub kind: Type,
}

/// Why a value cannot be: the end of a sentence that begins with the number's name.
#[derive(Debug, PartialEq)]
pub struct Wrong(String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Field {
    /// The value, if it can be true: a share of a whole from 0 to 100 (what a sum of floats puts a hair above is 100),
    /// everything else not negative, not absurd, a number. A text is cut to 256 bytes of plain characters.
    ///
    /// # Errors
    /// What it must be and what it is.
    pub fn checked(&self, value: Value) -> Result<Value, Wrong> {
        let wrong = |most: &dyn fmt::Display, is: &dyn fmt::Display| {
            Err(Wrong(format!("must be 0 to {most}, is {is}")))
        };
        match value {
            Value::Double(x) if self.unit == "%" => match x {
                x if (0.0..=100.5).contains(&x) => Ok(Value::Double(x.min(100.0))),
                x => wrong(&100, &x),
            },
            Value::Double(x) if !(0.0..=bounds::AMOUNT).contains(&x) => wrong(&bounds::AMOUNT, &x),
            Value::Int(n) if self.unit == SCORE => match n {
                -1000..=1000 => Ok(Value::Int(n)),
                n => Err(Wrong(format!("must be -1000 to 1000, is {n}"))),
            },
            Value::Int(n) if !(0..=bounds::COUNT).contains(&n) => wrong(&bounds::COUNT, &n),
            Value::Text(text) => Ok(Value::Text(bounds::sentence(&text, TEXT_MAX).into_owned())),
            value => Ok(value),
        }
    }
}

/// A resource's numbers.
#[derive(Debug)]
pub struct Resource {
    /// In the registry: what the group of attributes is called, and what it is about.
    pub title: &'static str,
    pub brief: &'static str,
    pub fields: &'static [Field],
}

/// What a field of a struct of numbers can be.
pub trait Number: Sized {
    const TYPE: Type;
    fn from_value(value: Value) -> Option<Self>;
    fn to_value(&self) -> Value;
    fn round(&mut self) {}
}

impl Number for f64 {
    const TYPE: Type = Type::Double;
    fn from_value(value: Value) -> Option<f64> {
        match value {
            Value::Double(x) => Some(x),
            _ => None,
        }
    }
    fn to_value(&self) -> Value {
        Value::Double(*self)
    }
    fn round(&mut self) {
        *self = super::tidy(*self);
    }
}

impl Number for i64 {
    const TYPE: Type = Type::Int;
    fn from_value(value: Value) -> Option<i64> {
        match value {
            Value::Int(n) => Some(n),
            _ => None,
        }
    }
    fn to_value(&self) -> Value {
        Value::Int(*self)
    }
}

impl Number for String {
    const TYPE: Type = Type::Text;
    fn from_value(value: Value) -> Option<String> {
        match value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
    fn to_value(&self) -> Value {
        Value::Text(self.clone())
    }
}

/// A struct of numbers and its table, from the same rows: type, unit and, unless only others report it, the attribute of
/// the OTLP event. A row's comment is what the registry, docs/metrics.md and the object's definition say of it.
macro_rules! numbers {
    ($title:literal $(#[doc = $about:literal])+ $name:ident {
        $($(#[doc = $brief:literal])+ $field:ident: $type:ty, $unit:literal $(, $attribute:literal)?;)*
    }) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(rename_all = "camelCase")]
        #[schemars(transform = $name::limits)]
        pub struct $name {
            $($(#[doc = $brief])+
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub $field: Option<$type>,)*
        }

        impl $name {
            pub const RESOURCE: $crate::evidence::Resource = $crate::evidence::Resource {
                title: $title,
                brief: concat!($($about),+),
                fields: &[$($crate::evidence::Field {
                    field: stringify!($field),
                    unit: $unit,
                    brief: concat!($($brief),+),
                    attribute: $crate::evidence::field::numbers!(@attribute $($attribute)?),
                    kind: <$type as $crate::evidence::field::Number>::TYPE,
                }),*],
            };

            /// Adds every number that is known, with its row.
            pub(super) fn known(
                &self,
                out: &mut Vec<(&'static $crate::evidence::Field, $crate::evidence::Value)>,
            ) {
                use $crate::evidence::field::Number;
                let mut rows = $name::RESOURCE.fields.iter();
                $(if let (Some(row), Some(number)) = (rows.next(), &self.$field) {
                    out.push((row, number.to_value()));
                })*
            }

            pub(super) fn read<E>(
                &mut self,
                read: &mut impl FnMut(
                    &'static $crate::evidence::Field,
                    &'static str,
                ) -> Result<Option<$crate::evidence::Value>, E>,
            ) -> Result<(), E> {
                use $crate::evidence::field::Number;
                let mut rows = $name::RESOURCE.fields.iter();
                $(if let Some(row) = rows.next() && let Some(attribute) = row.attribute {
                    self.$field = read(row, attribute)?.and_then(<$type>::from_value);
                })*
                Ok(())
            }

            /// Cuts what is too long, and leaves out what cannot be; how many that were.
            pub(super) fn bound(&mut self) -> u64 {
                use $crate::evidence::field::Number;
                let (mut rows, mut left_out) = ($name::RESOURCE.fields.iter(), 0);
                $(if let (Some(row), Some(number)) = (rows.next(), self.$field.take()) {
                    self.$field = row.checked(number.to_value()).ok().and_then(<$type>::from_value);
                    left_out += u64::from(self.$field.is_none());
                })*
                left_out
            }

            pub(super) fn round(&mut self) {
                use $crate::evidence::field::Number;
                $(if let Some(number) = &mut self.$field { number.round(); })*
            }

            /// The limits of the rows, in the object's definition.
            fn limits(schema: &mut schemars::Schema) {
                $crate::evidence::field::limit(schema, $name::RESOURCE.fields);
            }
        }
    };
    (@attribute) => { None };
    (@attribute $attribute:literal) => { Some($attribute) };
}
pub(super) use numbers;

/// Puts the limits of the rows into the schema of their struct.
pub fn limit(schema: &mut schemars::Schema, fields: &[Field]) {
    let Some(properties) = schema.get_mut("properties").and_then(|p| p.as_object_mut()) else { return };
    // In the struct's order, as they were derived.
    for field in fields {
        let property = properties.get_mut(&camel(field.field)).and_then(|p| p.as_object_mut());
        let Some(property) = property else { continue };
        match field.kind {
            Type::Text => {
                property.insert("maxLength".into(), TEXT_MAX.into());
            }
            _ if field.unit == "%" => {
                property.insert("minimum".into(), 0.into());
                property.insert("maximum".into(), 100.into());
            }
            _ => {}
        }
    }
}

/// `throttled_percent` as `throttledPercent`.
fn camel(snake: &str) -> String {
    let mut parts = snake.split('_');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut letters = part.chars();
        out.extend(letters.next().map(|c| c.to_ascii_uppercase()));
        out.push_str(letters.as_str());
    }
    out
}
