//! Custom resources: what a CustomResourceDefinition adds to the API.

use std::collections::BTreeMap;

use serde_json::Value;

/// The parts of a CustomResourceDefinition that serving its objects needs.
#[derive(Clone, Debug, Default)]
pub struct CustomResource {
    /// The structural schema of each served version.
    pub schemas: BTreeMap<String, Value>,
    /// `additionalPrinterColumns` of each served version.
    pub columns: BTreeMap<String, Vec<Value>>,
    /// The `scale` subresource's paths.
    pub scale: Option<Value>,
}
