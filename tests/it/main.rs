//! The integration binary: the house's own rules, and end-to-end tests against the real binary.

mod house;
