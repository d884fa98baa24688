//! The one configuration file: see `docs/configuration.md`.
