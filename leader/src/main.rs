//! leader
fn main() {}
