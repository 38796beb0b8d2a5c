//! Input that cannot be read.

use std::fmt;

use super::document::Place;

/// One thing that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InputError {
    /// The file, or `-`.
    pub(crate) file: String,
    /// Where in it.
    pub(crate) document: Option<Place>,
    /// The object, the field and what is wrong with it.
    pub(crate) reason: String,
}

impl fmt::Display for InputError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.file)?;
        if let Some(place) = self.document {
            write!(formatter, ", {place}")?;
        }
        write!(formatter, ": {}", self.reason)
    }
}

/// Everything that cannot be read.
#[derive(Debug)]
pub(crate) struct Unreadable {
    /// In the order of the input; never empty.
    pub(crate) errors: Vec<InputError>,
}
