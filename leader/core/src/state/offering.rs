//! The name of an offering as one text, so that it can be a key in JSON.

use std::fmt;

use drover_common::instance_type::CapacityType;
use serde::{Deserialize, Serialize};

use crate::command::UnavailableOffering;

/// An instance type in a zone under one billing; written `m5.large/us-east-1a/spot`, with the id of
/// a capacity reservation as a fourth part where it is of one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OfferingKey {
    /// Instance type.
    pub instance_type: String,
    /// Zone.
    pub zone: String,
    /// Billing.
    pub capacity_type: CapacityType,
    /// Capacity reservation.
    pub reservation: Option<String>,
}

impl From<&UnavailableOffering> for OfferingKey {
    fn from(offering: &UnavailableOffering) -> Self {
        Self {
            instance_type: offering.instance_type.clone(),
            zone: offering.zone.clone(),
            capacity_type: offering.capacity_type,
            reservation: offering.reservation.clone(),
        }
    }
}

impl fmt::Display for OfferingKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}/{}", self.instance_type, self.zone, self.capacity_type)?;
        match &self.reservation {
            Some(id) => write!(formatter, "/{id}"),
            None => Ok(()),
        }
    }
}

impl From<OfferingKey> for String {
    fn from(key: OfferingKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for OfferingKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut parts = text.split('/');
        let (Some(instance_type), Some(zone), Some(billing), reservation, None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(format!("{text:?} is not type/zone/capacity type"));
        };
        let capacity_type = [CapacityType::Reserved, CapacityType::Spot, CapacityType::OnDemand]
            .into_iter()
            .find(|c| c.as_str() == billing)
            .ok_or_else(|| format!("{billing:?} is not a capacity type"))?;
        Ok(Self {
            instance_type: instance_type.to_owned(),
            zone: zone.to_owned(),
            capacity_type,
            reservation: reservation.map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written_with_a_reservation_and_without() {
        for text in ["m5.large/us-east-1a/spot", "m5.large/us-east-1a/reserved/cr-1"] {
            let key = OfferingKey::try_from(text.to_owned()).unwrap();
            assert_eq!(key.to_string(), text);
        }
        for bad in ["m5.large/us-east-1a", "m5.large/us-east-1a/other", "a/b/reserved/cr-1/x"] {
            assert!(OfferingKey::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
