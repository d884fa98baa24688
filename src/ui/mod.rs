//! What people see in a terminal: `check`, `birth`, `who`.

pub mod birth;
pub mod check;
pub mod who;
