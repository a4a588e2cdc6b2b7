//! The `diorama` command.

fn main() {}
