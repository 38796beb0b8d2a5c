//! The rules of a drain: which pods go, in which order, with how much grace, and past which budget.
