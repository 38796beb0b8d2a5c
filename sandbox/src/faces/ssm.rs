//! SSM's `GetParameter`, in AWS's JSON 1.1 protocol.

use axum::Router;
use drover_common::ec2::{Ec2Answer, Ec2Call, Ec2Failure};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::faces::aws_json::{self, Service};
use crate::shared::SharedWorld;
use crate::world::cloud::{Cloud, refuse};
use crate::world::faults::Face;

/// SSM's router.
pub(crate) fn router(world: SharedWorld) -> Router {
    aws_json::router(
        world,
        Service { face: Face::Ssm, prefix: "AmazonSSM.", perform, patience: aws_json::never },
    )
}

fn perform(
    cloud: &mut Cloud,
    operation: &str,
    input: &Value,
    now: Timestamp,
) -> Result<Value, Ec2Failure> {
    if operation != "GetParameter" {
        return Err(aws_json::unknown_operation(operation));
    }
    let name = input.get("Name").and_then(Value::as_str).unwrap_or_default();
    if name.is_empty() {
        return Err(refuse("ValidationException", "Name: must not be empty"));
    }
    match cloud.apply(&Ec2Call::GetParameter(name.to_owned()), now)? {
        Ec2Answer::Parameter(value) => Ok(json!({"Parameter": {
            "Name": name,
            "Type": "String",
            "Value": value,
            "Version": 1,
            "DataType": "aws:ec2:image",
        }})),
        _ => Ok(Value::Null),
    }
}
