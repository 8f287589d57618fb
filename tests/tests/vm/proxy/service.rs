//! The flag service as the proxy of this test sees it, and the versions that it tries to reach.

use anyhow::Result;
use flag::health::HealthChecks;
use flag::record::Record;
use flag::report::Report;
use flag::snapshot::{Asks, Snapshot};

use super::super::host::{Dispatched, lock};
use super::Proxy;

impl Proxy {
    /// Answers all calls that would be answered now.
    pub(super) fn serve(&mut self) -> Result<()> {
        let calls = std::mem::take(&mut lock(&self.shared).calls);
        for call in calls {
            // Envoy forgets the calls of a plugin that goes.
            if !self.workers[call.worker].has(call.plugin) {
                continue;
            }
            let reply = if self.frozen == Some(call.worker) { None } else { self.reply(&call)? };
            match reply {
                Some((status, body)) => self.answer(&call, status, body)?,
                None => lock(&self.shared).calls.push(call),
            }
        }
        Ok(())
    }

    /// Status and body of the answer; `None`: it is not due yet.
    fn reply(&mut self, call: &Dispatched) -> Result<Option<(&'static str, Vec<u8>)>> {
        if !call.path.starts_with("/v1/") {
            return Ok(Some((self.reached, b"words".to_vec())));
        }
        if self.away {
            return Ok(Some(("", vec![])));
        }
        if call.path.starts_with("/v1/report") {
            return Ok(Some(match Report::parse(&call.body) {
                Ok(report) if report.seq <= self.seq => ("409", b"it is not later than the last one".to_vec()),
                Ok(report) => {
                    self.seq = report.seq;
                    self.reports.push(report);
                    ("200", b"{}".to_vec())
                }
                Err(error) => ("400", error.to_string().into_bytes()),
            }));
        }
        if self.hasty {
            self.polls += 1;
            return Ok(Some(("204", vec![])));
        }
        let snapshot = self.snapshot(call.path.contains("&level=2"));
        let known = call.path.contains(&format!("revision={}&", snapshot.revision));
        Ok(if known { None } else { Some(("200", snapshot.to_bytes()?)) })
    }

    /// Answers the poll of this worker with a record that may be older than what others have got.
    pub(crate) fn answer_poll_of(&mut self, worker: usize, record: Record) -> Result<()> {
        let calls = std::mem::take(&mut lock(&self.shared).calls);
        let ours = |call: &Dispatched| call.worker == worker && call.path.starts_with("/v1/snapshot");
        let (ours, others): (Vec<_>, Vec<_>) = calls.into_iter().partition(ours);
        lock(&self.shared).calls.extend(others);
        let now = std::mem::replace(&mut self.record, record);
        for call in ours {
            let body = self.snapshot(true).to_bytes()?;
            self.answer(&call, "200", body)?;
        }
        self.record = now;
        Ok(())
    }

    /// What is sent to a poller of level 1, or of level 2.
    fn snapshot(&self, second: bool) -> Snapshot {
        let mut snapshot = Snapshot {
            protocol: flag::PROTOCOL,
            revision: format!("{}-{}", self.record.epoch, self.record.active),
            report_every_ms: 50,
            prove_routes: self.prove_routes.clone(),
            measure: self.measure.clone(),
            flags: [&self.record].into_iter().chain(self.beside.iter().map(|one| &one.0)).cloned().collect(),
            asks: None,
        };
        if second {
            snapshot.revision += &format!("-{}", self.probe.as_ref().map_or("", |probe| &probe.id));
            if let Some(fence) = &self.fence {
                snapshot.revision += &format!("-{}-{}-{}", fence.since, fence.marked.concat(), fence.closed.concat());
            }
            let (revision, probes) = (snapshot.revision.clone(), self.probe.iter().cloned().collect());
            let health = HealthChecks {
                flag: self.record.uid.clone(),
                user_agents: vec!["Prometheus/".to_owned()],
                paths: vec!["/healthz".to_owned()],
            };
            let fences = self.fence.iter().chain(self.beside.iter().map(|one| &one.1)).cloned().collect();
            snapshot.asks = Some(Asks { revision, probes, health: vec![health], fences });
        }
        snapshot
    }

    fn answer(&mut self, call: &Dispatched, status: &str, body: Vec<u8>) -> Result<()> {
        let vm = &mut self.workers[call.worker].vm;
        let (plugin, size) = (call.plugin, body.len() as i32);
        vm.store.data_mut().answer = (status.to_owned(), body);
        vm.call("proxy_on_http_call_response", plugin, &[plugin, call.token, 1, size, 0])?;
        vm.store.data_mut().answer = Default::default();
        Ok(())
    }
}
