//! Launch templates.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use drover_common::ec2::{
    BlockDevice, Ec2Answer, Ec2Call, Ec2Failure, LaunchTemplate, LaunchTemplateRequest,
    MetadataOptions, ReservationTarget, ReservationUse,
};
use drover_common::instance_type::ReservationKind;
use jiff::Timestamp;

use super::page::page;
use super::parameters::{Parameters, tag_filters, unknown_filter};
use super::xml::Xml;
use crate::world::cloud::{Cloud, refuse};

pub(super) fn create(
    cloud: &mut Cloud,
    parameters: &Parameters,
    now: Timestamp,
) -> Result<Xml, Ec2Failure> {
    let request = decode(parameters)?;
    if cloud.launch_template_id(&request.name).is_some() {
        let message = format!("Launch template name already in use: {}", request.name);
        return Err(refuse("InvalidLaunchTemplateName.AlreadyExistsException", message));
    }
    let name = request.name.clone();
    cloud.apply(&Ec2Call::CreateLaunchTemplate(request), now)?;
    let id = cloud.launch_template_id(&name).unwrap_or_default().to_owned();
    Ok(answer(&id, cloud.launch_template(&name)))
}

/// One template as an answer shows it.
fn answer(id: &str, template: Option<LaunchTemplate>) -> Xml {
    Xml::of(|xml| {
        if let Some(template) = template {
            xml.wrap("launchTemplate", |xml| encode(xml, id, &template));
        }
    })
}

pub(super) fn delete(
    cloud: &mut Cloud,
    parameters: &Parameters,
    now: Timestamp,
) -> Result<Xml, Ec2Failure> {
    let name = parameters.required("LaunchTemplateName")?;
    let template = cloud.launch_template(name);
    let id = cloud.launch_template_id(name).unwrap_or_default().to_owned();
    cloud.apply(&Ec2Call::DeleteLaunchTemplate(name.to_owned()), now)?;
    Ok(answer(&id, template))
}

pub(super) fn describe(
    cloud: &mut Cloud,
    parameters: &Parameters,
    now: Timestamp,
) -> Result<Xml, Ec2Failure> {
    let (tags, filters) = tag_filters(parameters.filters());
    if let Some((name, _)) = filters.first() {
        return Err(unknown_filter(name));
    }
    let names = parameters.texts("LaunchTemplateName");
    if let Some(missing) = names.iter().find(|name| cloud.launch_template_id(name).is_none()) {
        return Err(refuse(
            "InvalidLaunchTemplateName.NotFoundException",
            format!("launch template {missing} does not exist"),
        ));
    }
    let shown = match cloud.apply(&Ec2Call::DescribeLaunchTemplates(tags), now)? {
        Ec2Answer::LaunchTemplates(shown) => shown,
        _ => Vec::new(),
    };
    let asked = shown.into_iter().filter(|one| names.is_empty() || names.contains(&one.name));
    let page = page(asked.collect(), parameters, 200)?;
    Ok(Xml::of(|xml| {
        xml.list("launchTemplates", page.items, |xml, one| {
            encode(xml, cloud.launch_template_id(&one.name).unwrap_or_default(), &one);
        });
        xml.optional("nextToken", page.next);
    }))
}

fn encode(xml: &mut Xml, id: &str, template: &LaunchTemplate) {
    xml.text("launchTemplateId", id);
    xml.text("launchTemplateName", &template.name);
    xml.text("createTime", template.created_at.strftime("%Y-%m-%dT%H:%M:%S.000Z"));
    xml.text("defaultVersionNumber", 1);
    xml.text("latestVersionNumber", 1);
    xml.tags(&template.tags);
}

fn decode(parameters: &Parameters) -> Result<LaunchTemplateRequest, Ec2Failure> {
    let data = parameters.below("LaunchTemplateData");
    let options = data.below("MetadataOptions");
    let option = |key, usual: &str| options.text(key).unwrap_or(usual).to_owned();
    let interface = data.list("NetworkInterface").into_iter().next().unwrap_or_default();
    let mut security_groups = data.texts("SecurityGroupId");
    security_groups.extend(interface.texts("SecurityGroupId"));
    let devices = data.list("BlockDeviceMapping");
    Ok(LaunchTemplateRequest {
        name: parameters.required("LaunchTemplateName")?.to_owned(),
        image: data.text("ImageId").unwrap_or_default().to_owned(),
        security_groups,
        instance_profile: data.text("IamInstanceProfile.Name").map(str::to_owned),
        user_data: user_data(data.text("UserData").unwrap_or_default())?,
        block_devices: devices.iter().map(block_device).collect::<Result<_, _>>()?,
        metadata_options: MetadataOptions {
            http_endpoint: option("HttpEndpoint", "enabled"),
            http_protocol_ipv6: option("HttpProtocolIpv6", "disabled"),
            http_put_response_hop_limit: options.number("HttpPutResponseHopLimit")?.unwrap_or(1),
            http_tokens: option("HttpTokens", "optional"),
        },
        detailed_monitoring: data.flag("Monitoring.Enabled").unwrap_or_default(),
        associate_public_ip: interface.flag("AssociatePublicIpAddress"),
        reservation: reservation(&data)?,
        tags: parameters.list("TagSpecification").iter().flat_map(|one| one.tags("Tag")).collect(),
    })
}

fn reservation(data: &Parameters) -> Result<Option<ReservationUse>, Ec2Failure> {
    let specification = data.below("CapacityReservationSpecification");
    let target = specification.text("CapacityReservationTarget.CapacityReservationId");
    let block = data.text("InstanceMarketOptions.MarketType") == Some("capacity-block");
    let kind = if block { ReservationKind::CapacityBlock } else { ReservationKind::Default };
    match (specification.text("CapacityReservationPreference"), target) {
        (None | Some("capacity-reservations-only"), Some(id)) => {
            Ok(Some(ReservationUse::Only(ReservationTarget { id: id.to_owned(), kind })))
        }
        (Some("none"), None) => Ok(Some(ReservationUse::Never)),
        (None | Some("open"), None) => Ok(None),
        (Some(other), _) => Err(refuse(
            "InvalidParameterCombination",
            format!("CapacityReservationPreference {other} does not go with this target"),
        )),
    }
}

fn user_data(encoded: &str) -> Result<String, Ec2Failure> {
    let bytes = STANDARD.decode(encoded).map_err(|_| {
        refuse("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.")
    })?;
    // EC2's limit counts the text before encoding.
    if bytes.len() > 16 * 1024 {
        return Err(refuse("InvalidUserData.Malformed", "User data is limited to 16384 bytes"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn block_device(parameters: &Parameters) -> Result<BlockDevice, Ec2Failure> {
    let ebs = parameters.below("Ebs");
    let text = |key| ebs.text(key).map(str::to_owned);
    Ok(BlockDevice {
        device_name: parameters.text("DeviceName").unwrap_or_default().to_owned(),
        size_gib: ebs.number("VolumeSize")?,
        volume_type: text("VolumeType"),
        iops: ebs.number("Iops")?,
        throughput: ebs.number("Throughput")?,
        encrypted: ebs.flag("Encrypted"),
        kms_key_id: text("KmsKeyId"),
        snapshot_id: text("SnapshotId"),
        delete_on_termination: ebs.flag("DeleteOnTermination"),
        volume_initialization_rate: ebs.number("VolumeInitializationRate")?,
    })
}
