//! leader/core
