//! Comparisons of what is counted with the kernel's own books and with strace. What the machine does meanwhile may be in
//! the figures, and there are kernels that do not tell of every switch: `scripts/test` may repeat them.

mod birth;
mod certificates;
mod cpu;
pub mod ledger;
mod memory;
mod possible;
mod runc;
