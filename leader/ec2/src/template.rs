//! Launch templates.

use aws_sdk_ec2::types::{
    LaunchTemplateBlockDeviceMappingRequest, LaunchTemplateEbsBlockDeviceRequest,
    LaunchTemplateHttpTokensState, LaunchTemplateIamInstanceProfileSpecificationRequest,
    LaunchTemplateInstanceMetadataEndpointState, LaunchTemplateInstanceMetadataOptionsRequest,
    LaunchTemplateInstanceMetadataProtocolIpv6,
    LaunchTemplateInstanceNetworkInterfaceSpecificationRequest,
    LaunchTemplateTagSpecificationRequest, LaunchTemplatesMonitoringRequest,
    RequestLaunchTemplateData, ResourceType, Tag, VolumeType,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use drover_common::ec2::{
    BlockDevice, Ec2Failure, LaunchTemplate, LaunchTemplateRequest, MetadataOptions, Tags,
};
use jiff::Timestamp;

use crate::Ec2;
use crate::describe::tag_filters;
use crate::failure::{failure, incomplete};
use crate::fleet::{sdk_tags, tag_specification};
use crate::reservation::specify;

/// EC2's code for a name that is taken.
const NAME_TAKEN: &str = "InvalidLaunchTemplateName.AlreadyExistsException";

impl Ec2 {
    pub(crate) async fn create_launch_template(
        &self,
        request: &LaunchTemplateRequest,
    ) -> Result<String, Ec2Failure> {
        let mut call = self
            .writes
            .create_launch_template()
            .launch_template_name(&request.name)
            .launch_template_data(data(request));
        if !request.tags.is_empty() {
            let tags = tag_specification(ResourceType::LaunchTemplate, &request.tags);
            call = call.tag_specifications(tags);
        }
        match call.send().await {
            Ok(output) => output
                .launch_template()
                .and_then(|template| template.launch_template_id())
                .map(str::to_owned)
                .ok_or_else(|| incomplete("CreateLaunchTemplate", "the template's id")),
            Err(error) => {
                let refused = failure(error);
                // Names are made from the content, so a template of this name is this template.
                if refused.code == NAME_TAKEN {
                    return self.launch_template_id(&request.name).await;
                }
                Err(refused)
            }
        }
    }

    async fn launch_template_id(&self, name: &str) -> Result<String, Ec2Failure> {
        let call = self.reads.describe_launch_templates().launch_template_names(name);
        let output = call.send().await.map_err(failure)?;
        let first = output.launch_templates().first();
        first
            .and_then(|template| template.launch_template_id())
            .map(str::to_owned)
            .ok_or_else(|| incomplete("DescribeLaunchTemplates", "the template's id"))
    }

    pub(crate) async fn describe_launch_templates(
        &self,
        tags: &Tags,
    ) -> Result<Vec<LaunchTemplate>, Ec2Failure> {
        let call = self.reads.describe_launch_templates().set_filters(Some(tag_filters(tags)));
        let mut pages = call.into_paginator().items().send();
        let mut found = Vec::new();
        while let Some(template) = pages.next().await {
            found.extend(shown(&template.map_err(failure)?));
        }
        Ok(found)
    }

    pub(crate) async fn delete_launch_template(&self, name: &str) -> Result<(), Ec2Failure> {
        let call = self.writes.delete_launch_template().launch_template_name(name);
        call.send().await.map_err(failure)?;
        Ok(())
    }
}

/// A template without name or time is nothing that can be acted on.
fn shown(template: &aws_sdk_ec2::types::LaunchTemplate) -> Option<LaunchTemplate> {
    let created = template.create_time()?;
    let tag = |tag: &Tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned()));
    Some(LaunchTemplate {
        name: template.launch_template_name()?.to_owned(),
        created_at: Timestamp::new(created.secs(), 0).ok()?,
        tags: template.tags().iter().filter_map(tag).collect(),
    })
}

fn data(request: &LaunchTemplateRequest) -> RequestLaunchTemplateData {
    let mut data = RequestLaunchTemplateData::builder()
        .image_id(&request.image)
        .user_data(STANDARD.encode(&request.user_data))
        .metadata_options(metadata_options(&request.metadata_options))
        .set_block_device_mappings(
            (!request.block_devices.is_empty())
                .then(|| request.block_devices.iter().map(block_device).collect()),
        )
        .monitoring(
            LaunchTemplatesMonitoringRequest::builder()
                .enabled(request.detailed_monitoring)
                .build(),
        );
    if let Some(profile) = &request.instance_profile {
        let profile =
            LaunchTemplateIamInstanceProfileSpecificationRequest::builder().name(profile).build();
        data = data.iam_instance_profile(profile);
    }
    let groups = (!request.security_groups.is_empty()).then(|| request.security_groups.clone());
    // EC2 wants the security groups on the interface where one is specified.
    data = match request.associate_public_ip {
        Some(public) => data.network_interfaces(
            LaunchTemplateInstanceNetworkInterfaceSpecificationRequest::builder()
                .device_index(0)
                .associate_public_ip_address(public)
                .set_groups(groups)
                .build(),
        ),
        None => data.set_security_group_ids(groups),
    };
    if !request.tags.is_empty() {
        for resource in [ResourceType::Volume, ResourceType::NetworkInterface] {
            data = data.tag_specifications(
                LaunchTemplateTagSpecificationRequest::builder()
                    .resource_type(resource)
                    .set_tags(Some(sdk_tags(&request.tags)))
                    .build(),
            );
        }
    }
    let mut data = data.build();
    specify(&mut data, request.reservation.as_ref());
    data
}

fn metadata_options(options: &MetadataOptions) -> LaunchTemplateInstanceMetadataOptionsRequest {
    let hops = i32::try_from(options.http_put_response_hop_limit).unwrap_or(i32::MAX);
    LaunchTemplateInstanceMetadataOptionsRequest::builder()
        .http_endpoint(LaunchTemplateInstanceMetadataEndpointState::from(
            options.http_endpoint.as_str(),
        ))
        .http_protocol_ipv6(LaunchTemplateInstanceMetadataProtocolIpv6::from(
            options.http_protocol_ipv6.as_str(),
        ))
        .http_tokens(LaunchTemplateHttpTokensState::from(options.http_tokens.as_str()))
        .http_put_response_hop_limit(hops)
        .build()
}

fn block_device(device: &BlockDevice) -> LaunchTemplateBlockDeviceMappingRequest {
    let number = |value: Option<u32>| value.map(|value| i32::try_from(value).unwrap_or(i32::MAX));
    let ebs = LaunchTemplateEbsBlockDeviceRequest::builder()
        .set_volume_size(number(device.size_gib))
        .set_volume_type(device.volume_type.as_deref().map(VolumeType::from))
        .set_iops(number(device.iops))
        .set_throughput(number(device.throughput))
        .set_encrypted(device.encrypted)
        .set_kms_key_id(device.kms_key_id.clone())
        .set_snapshot_id(device.snapshot_id.clone())
        .set_delete_on_termination(device.delete_on_termination)
        .set_volume_initialization_rate(number(device.volume_initialization_rate))
        .build();
    LaunchTemplateBlockDeviceMappingRequest::builder()
        .device_name(&device.device_name)
        .ebs(ebs)
        .build()
}
