//! EC2 and SQS, as far as the brain's calls reach.

use super::*;

impl World {
    /// Puts a message into the interruption queue.
    pub(in super::super) fn send(&mut self, body: &str) {
        self.sent += 1;
        let (id, receipt) = (format!("message-{}", self.sent), String::new());
        self.queue.push((QueueMessage { id, receipt, body: body.to_owned() }, false));
    }

    /// Messages that were handed out and not deleted are handed out again.
    pub(in super::super) fn show_queue_again(&mut self) {
        for (_, handed_out) in &mut self.queue {
            *handed_out = false;
        }
    }

    /// Ten messages at most, each under a receipt that is good until the next.
    fn hand_out(&mut self) -> Vec<QueueMessage> {
        let shown = self.queue.iter_mut().filter(|(_, handed_out)| !handed_out);
        let messages = shown.take(10).map(|(message, handed_out)| {
            *handed_out = true;
            message.receipt = format!("{}+", message.receipt);
            QueueMessage {
                receipt: format!("{} {}", message.id, message.receipt),
                ..message.clone()
            }
        });
        messages.collect()
    }

    fn delete_messages(&mut self, receipts: &[String]) {
        let is_meant = |message: &QueueMessage| {
            receipts.contains(&format!("{} {}", message.id, message.receipt))
        };
        self.queue.retain(|(message, _)| !is_meant(message));
    }

    pub(super) fn ec2(&mut self, call: &Ec2Call) -> Result<Ec2Answer, Ec2Failure> {
        Ok(match call {
            Ec2Call::CreateFleet(request) => Ec2Answer::Fleet(self.create_fleet(request)?),
            Ec2Call::DescribeInstances(query) => {
                self.instance_reads += usize::from(query.instances.is_empty());
                Ec2Answer::Instances(self.describe(query))
            }
            Ec2Call::ReceiveMessages { .. } => Ec2Answer::Messages(self.hand_out()),
            Ec2Call::DeleteMessages { receipts, .. } => {
                self.delete_messages(receipts);
                Ec2Answer::Done
            }
            Ec2Call::TerminateInstances(ids) => {
                for id in ids {
                    self.terminated.push(id.clone());
                    self.end_instance(id);
                }
                Ec2Answer::Done
            }
            Ec2Call::CreateTags { instances, tags } => {
                for id in instances {
                    if let Some(instance) = self.instances.get_mut(id) {
                        instance.tags.extend(tags.clone());
                    }
                }
                Ec2Answer::Done
            }
            Ec2Call::DescribeCapacityReservations(_) => self.describe_reservations()?,
            Ec2Call::CreateLaunchTemplate(template) => {
                let uses = template.reservation.clone();
                self.uses.extend(uses.map(|uses| (template.name.clone(), uses)));
                self.add_template(&template.name, template.tags.clone());
                Ec2Answer::LaunchTemplate("lt-1".to_owned())
            }
            Ec2Call::DescribeLaunchTemplates(tags) => {
                let mut found: Vec<LaunchTemplate> = self.templates.values().cloned().collect();
                found.retain(|one| tags.iter().all(|(key, tag)| one.tags.get(key) == Some(tag)));
                Ec2Answer::LaunchTemplates(found)
            }
            Ec2Call::DeleteLaunchTemplate(name) => match self.templates.remove(name) {
                Some(_) => Ec2Answer::Done,
                None => {
                    return Err(Ec2Failure {
                        kind: Ec2FailureKind::NotFound,
                        code: "InvalidLaunchTemplateName.NotFoundException".to_owned(),
                        message: "no such template".to_owned(),
                    });
                }
            },
            Ec2Call::GetOnDemandPrices => {
                return Err(Ec2Failure {
                    kind: Ec2FailureKind::Unsupported,
                    code: "UnknownOperation".to_owned(),
                    message: "no such call".to_owned(),
                });
            }
            Ec2Call::DescribeSubnets(_) if self.lacks_subnets => Ec2Answer::Subnets(Vec::new()),
            other => describe_region(other),
        })
    }

    /// A launch template, if there is none of that name.
    pub(in super::super) fn add_template(&mut self, name: &str, tags: Tags) {
        let made = LaunchTemplate { name: name.to_owned(), created_at: self.now, tags };
        self.templates.entry(name.to_owned()).or_insert(made);
    }

    fn create_fleet(&mut self, request: &FleetRequest) -> Result<FleetAnswer, Ec2Failure> {
        let refuse = |kind, code: &str| {
            Err(Ec2Failure { kind, code: code.to_owned(), message: String::new() })
        };
        if let Some((before, answer)) = self.fleets.get(&request.client_token) {
            if before != request {
                return refuse(Ec2FailureKind::TokenMismatch, "IdempotentParameterMismatch");
            }
            return Ok(answer.clone());
        }
        if !self.templates.contains_key(&request.launch_template) {
            return refuse(Ec2FailureKind::NotFound, "InvalidLaunchTemplateName.NotFoundException");
        }
        self.fleets_asked += 1;
        if let Some(code) = self.refuses_fleets {
            return refuse(Ec2FailureKind::Invalid, code);
        }
        let mut answer = FleetAnswer::default();
        let no_spot = self.spot_is_sold_out && request.capacity_type == CapacityType::Spot;
        let (sold_out, offered): (Vec<_>, Vec<_>) = request
            .overrides
            .iter()
            .partition(|o| no_spot || self.sold_out.contains(&o.instance_type));
        answer.errors = sold_out
            .iter()
            .map(|o| FleetError {
                code: "InsufficientInstanceCapacity".to_owned(),
                message: "none left".to_owned(),
                instance_type: Some(o.instance_type.clone()),
                zone: Some(o.zone.clone()),
            })
            .collect();
        for _ in 0..request.count {
            let Some(chosen) = offered.first() else { break };
            let reservation = match self.room_for(request) {
                Ok(reservation) => reservation,
                Err(refused) => {
                    answer.errors.push(refused);
                    break;
                }
            };
            let id = InstanceId::from(format!("i-{:04}", self.launched));
            self.launched += 1;
            self.instances.insert(
                id.clone(),
                Instance {
                    instance: id.clone(),
                    instance_type: chosen.instance_type.clone(),
                    zone: chosen.zone.clone(),
                    state: InstanceState::Running,
                    capacity_type: request.capacity_type,
                    reservation,
                    image: "ami-1".to_owned(),
                    subnet: chosen.subnet.clone(),
                    private_dns_name: format!("{id}.ec2.internal"),
                    launch_time: self.now,
                    tags: request.tags.clone(),
                },
            );
            answer.instances.push(LaunchedInstance {
                instance: id,
                instance_type: chosen.instance_type.clone(),
                zone: chosen.zone.clone(),
                subnet: chosen.subnet.clone(),
                capacity_type: request.capacity_type,
            });
        }
        self.fleets.insert(request.client_token.clone(), (request.clone(), answer.clone()));
        Ok(answer)
    }

    fn describe(&self, query: &InstanceQuery) -> Vec<Instance> {
        let matches = |instance: &Instance| {
            (query.instances.is_empty() || query.instances.contains(&instance.instance))
                && query.tags.iter().all(|(key, wanted)| {
                    instance.tags.get(key).is_some_and(|value| wanted == "*" || value == wanted)
                })
        };
        self.instances.values().filter(|instance| matches(instance)).cloned().collect()
    }

    /// EC2 ends an instance; its kubelet goes with it.
    pub(in super::super) fn end_instance(&mut self, id: &InstanceId) {
        if let Some(instance) = self.instances.get_mut(id) {
            instance.state = match instance.state {
                InstanceState::ShuttingDown | InstanceState::Terminated => {
                    InstanceState::Terminated
                }
                _ => InstanceState::ShuttingDown,
            };
        }
    }
}
