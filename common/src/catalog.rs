//! The repository's own table of every instance type offered in one region, and the catalogue
//! file format of `drover simulate`.
