//! What the region sells and has: one zone, three types of a size, and a large one that is dear.

use drover_common::ec2::{Ec2Answer, Ec2Call, Image, Subnet};
use drover_common::instance_type::InstanceTypeFacts;
use jiff::Timestamp;

pub(super) fn describe_region(call: &Ec2Call) -> Ec2Answer {
    let kinds = ["m5.large", "m5a.large", "m6i.large", "m5.4xlarge"];
    match call {
        Ec2Call::DescribeInstanceTypes => {
            let facts = |name: &&str| InstanceTypeFacts {
                name: (*name).to_owned(),
                arch: "amd64".to_owned(),
                vcpus: if *name == "m5.4xlarge" { 16 } else { 2 },
                memory_mib: if *name == "m5.4xlarge" { 65_536 } else { 8_192 },
                network_interfaces: if *name == "m5.4xlarge" { 8 } else { 3 },
                ipv4_per_interface: if *name == "m5.4xlarge" { 30 } else { 10 },
                hypervisor: "nitro".to_owned(),
                spot: true,
                ..InstanceTypeFacts::default()
            };
            Ec2Answer::InstanceTypes(kinds.iter().map(facts).collect())
        }
        Ec2Call::DescribeInstanceTypeOfferings => Ec2Answer::Offerings(
            kinds.iter().map(|kind| ((*kind).to_owned(), "us-east-1a".to_owned())).collect(),
        ),
        Ec2Call::DescribeSpotPriceHistory => Ec2Answer::SpotPrices(
            kinds
                .iter()
                .zip([30_000, 40_000, 50_000, 400_000])
                .map(|(kind, price)| ((*kind).to_owned(), "us-east-1a".to_owned(), price))
                .collect(),
        ),
        Ec2Call::DescribeAvailabilityZones => {
            Ec2Answer::Zones(vec![("us-east-1a".to_owned(), "use1-az1".to_owned())])
        }
        Ec2Call::DescribeSubnets(_) => Ec2Answer::Subnets(vec![Subnet {
            id: "subnet-1".to_owned(),
            zone: "us-east-1a".to_owned(),
            zone_id: "use1-az1".to_owned(),
            available_addresses: 200,
        }]),
        Ec2Call::DescribeSecurityGroups(_) => {
            Ec2Answer::SecurityGroups(vec![("sg-1".to_owned(), "nodes".to_owned())])
        }
        Ec2Call::DescribeImages(_) => Ec2Answer::Images(vec![Image {
            id: "ami-1".to_owned(),
            name: "image".to_owned(),
            architecture: "amd64".to_owned(),
            creation_date: Timestamp::UNIX_EPOCH,
            deprecated: false,
        }]),
        other => unreachable!("{other:?} is not expected here"),
    }
}
