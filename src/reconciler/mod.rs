//! (reconciler)
