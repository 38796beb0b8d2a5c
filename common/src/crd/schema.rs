//! Schemas that no derive can express.

use schemars::{Schema, SchemaGenerator, json_schema};

/// An RFC 3339 time.
pub(super) fn timestamp(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}

/// A list of requirements of a NodePool's template or a NodeClaim.
pub(super) fn requirements(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": {"type": "object"}})
}

/// A list of taints.
pub(super) fn taints(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": {"type": "object"}})
}
