//! Identifiers as distinct types, so that an instance id can't be taken for a node name.
//!
//! Plans copy them by the ten thousand: a copy shares the text, or is a few bytes.

use std::fmt;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub SmolStr);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(SmolStr::new(text))
            }
        }

        impl From<SmolStr> for $name {
            fn from(text: SmolStr) -> Self {
                Self(text)
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(SmolStr::from(text))
            }
        }
    };
}

text_id!(
    /// An EC2 instance id, `i-…`.
    InstanceId
);
text_id!(
    /// A Node's name.
    NodeName
);
text_id!(
    /// A NodeClaim's name, fixed by the intent that launches it.
    NodeClaimName
);
text_id!(
    /// A NodePool's name.
    NodePoolName
);
text_id!(
    /// One launch attempt: one exact request under one client token.
    IntentId
);
text_id!(
    /// One committed disruption of one or more NodeClaims.
    DisruptionId
);
text_id!(
    /// A kernel boot id (`/proc/sys/kernel/random/boot_id`), new at every boot of an instance.
    BootId
);

impl IntentId {
    /// The EC2 client token of this intent: at most 64 ASCII characters, the same on every replay.
    pub fn client_token(&self) -> String {
        format!("drover-{}", self.0)
    }
}

/// The EC2 instance id in a Node's or NodeClaim's `providerID`, `aws:///<zone>/<instance id>`.
pub fn instance_of_provider_id(provider_id: &str) -> Option<InstanceId> {
    let rest = provider_id.strip_prefix("aws:///")?;
    let (_zone, instance) = rest.split_once('/')?;
    instance.starts_with("i-").then(|| InstanceId::from(instance))
}

/// The `providerID` of an instance in a zone.
pub fn provider_id(zone: &str, instance: &InstanceId) -> String {
    format!("aws:///{zone}/{instance}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provider_ids_round_trip() {
        let instance = InstanceId::from("i-0abc");
        let text = provider_id("us-east-1a", &instance);
        assert_eq!(text, "aws:///us-east-1a/i-0abc");
        assert_eq!(instance_of_provider_id(&text), Some(instance));
        for bad in ["", "aws:///x", "gce:///a/i-1", "aws:///us-east-1a/fargate-1"] {
            assert_eq!(instance_of_provider_id(bad), None, "{bad}");
        }
    }
}
