//! The interruption queue: SQS' messages.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;

use aws_sdk_sqs::types::DeleteMessageBatchRequestEntry;
use drover_common::ec2::{Ec2Failure, Ec2FailureKind, QueueMessage};

use crate::Ec2;
use crate::failure::{failure, incomplete};

/// How long SQS waits for a first message: as long as it can.
const WAIT_SECONDS: i32 = 20;
/// How long a message that was handed out is not handed out again: many times what a commit takes, and
/// little of a spot instance's two minutes, should a leader end that was handed one.
const HIDDEN_SECONDS: i32 = 20;
/// Messages handed out at once: as many as SQS can.
const MOST_MESSAGES: i32 = 10;

/// URLs of queues that were asked for by name.
#[derive(Debug, Default)]
pub(crate) struct QueueUrls(Mutex<HashMap<String, String>>);

impl QueueUrls {
    fn get(&self, name: &str) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn keep(&self, name: &str, url: &str) {
        let mut urls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        urls.insert(name.to_owned(), url.to_owned());
    }

    fn forget(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

impl Ec2 {
    pub(crate) async fn receive_messages(
        &self,
        queue: &str,
    ) -> Result<Vec<QueueMessage>, Ec2Failure> {
        let url = self.queue_url(queue).await?;
        let call = self
            .sqs
            .receive_message()
            .queue_url(url)
            .max_number_of_messages(MOST_MESSAGES)
            .wait_time_seconds(WAIT_SECONDS)
            .visibility_timeout(HIDDEN_SECONDS);
        let answer =
            call.send().await.map_err(|error| self.queue_failure(queue, failure(error)))?;
        let messages = answer.messages.unwrap_or_default().into_iter();
        let told = messages.filter_map(|message| {
            // Without a receipt it can't be deleted and comes again.
            Some(QueueMessage {
                id: message.message_id.unwrap_or_default(),
                receipt: message.receipt_handle?,
                body: message.body.unwrap_or_default(),
            })
        });
        Ok(told.collect())
    }

    pub(crate) async fn delete_messages(
        &self,
        queue: &str,
        receipts: &[String],
    ) -> Result<(), Ec2Failure> {
        let url = self.queue_url(queue).await?;
        let entry = |(number, receipt): (usize, &String)| {
            let entry = DeleteMessageBatchRequestEntry::builder().id(number.to_string());
            entry.receipt_handle(receipt).build()
        };
        let entries = receipts.iter().enumerate().map(entry).collect::<Result<Vec<_>, _>>();
        let entries =
            entries.map_err(|error| incomplete("DeleteMessageBatch", &error.to_string()))?;
        let call = self.sqs.delete_message_batch().queue_url(url).set_entries(Some(entries));
        // Single messages that were not deleted come again, and are deleted then.
        call.send().await.map_err(|error| self.queue_failure(queue, failure(error)))?;
        Ok(())
    }

    /// A queue's URL; a name is looked up once.
    async fn queue_url(&self, queue: &str) -> Result<String, Ec2Failure> {
        if queue.contains("://") {
            return Ok(queue.to_owned());
        }
        if let Some(url) = self.queue_urls.get(queue) {
            return Ok(url);
        }
        let answer = self.sqs.get_queue_url().queue_name(queue).send().await.map_err(failure)?;
        let url = answer.queue_url.ok_or_else(|| incomplete("GetQueueUrl", "the URL"))?;
        self.queue_urls.keep(queue, &url);
        Ok(url)
    }

    /// A queue that is not there any more may be made anew, elsewhere.
    fn queue_failure(&self, queue: &str, failed: Ec2Failure) -> Ec2Failure {
        if failed.kind == Ec2FailureKind::NotFound {
            self.queue_urls.forget(queue);
        }
        failed
    }
}
