//! The patch formats.

use serde_json::Value;

/// JSON merge patch (RFC 7386).
pub fn merge(mut target: Value, patch: &Value) -> Value {
    json_patch::merge(&mut target, patch);
    target
}
