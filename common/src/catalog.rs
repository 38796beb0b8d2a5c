//! The repository's own table of every instance type offered in one region, and the catalogue
//! file format of `drover simulate`.

mod file;
mod table;

pub use file::{Catalog, CatalogError, ListedType, parse};
pub use table::{CatalogEntry, REFERENCE_REGION, reference};
