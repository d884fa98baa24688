//! What people see in a terminal: `check`.

pub mod birth;
pub mod check;
