//! The faults of the flag service: whatever it does, requests are answered and the last good flag stays.

use std::time::Duration;

use anyhow::{Context, ensure};
use flag::instance::FlagState;
use flag::snapshot::Snapshot;
use harness::config::Upstream;
use harness::fake::{FakeService, Received, Reply};
use harness::{Backend, Envoy, EnvoyOptions, clock, story};
use hyper::body::Bytes;
use serde_json::{Value, json};

use crate::world::{UID, World, acked, bootstrap, plugin, record, reported, snapshot, traffic};

/// No request may take longer: a fresh proxy holds it for 500 ms at most, and the machine is busy.
const LONGEST: Duration = Duration::from_secs(2);

#[test]
fn away_from_the_start_and_there_later() {
    story("away-at-start", async |dir| {
        let mut service = FakeService::away().await?;
        let world = World::start(dir, &service, plugin()).await?;
        let load = world.load();
        traffic(&load, "v1").await?;
        world.fails("a service that is away").await?;
        assert_eq!(load.live().answered_by("v2"), 0);
        let appears_us = clock::now_us();
        service.answer(Reply::Snapshot(snapshot(10, "v2")));
        service.appear().await?;
        acked(&service, &record(10, "v2")).await?;
        let acked_us = clock::now_us();
        traffic(&load, "v2").await?;
        let results = load.stop().await?;
        results.assert_no_failures();
        assert!(results.latency(1.0) < LONGEST, "{:?}", results.latency(1.0));
        assert!(results.only(|it| it.end_us < appears_us).all_served_by("v1"));
        let after = results.after(acked_us);
        assert!(after.all_served_by("v2"), "{:?}", after.by_version());
        assert_eq!(service.bad_reports(), Vec::<String>::new());
        Ok(())
    });
}

#[test]
fn killed_after_a_flip_and_back() {
    story("killed-service", async |dir| {
        let mut service = FakeService::start(Reply::Snapshot(snapshot(10, "v2"))).await?;
        let world = World::start(dir, &service, plugin()).await?;
        let load = world.load();
        acked(&service, &record(10, "v2")).await?;
        let acked_us = clock::now_us();
        service.kill().await;
        world.fails("a killed service").await?;
        world.fails("a service that stays away").await?;
        traffic(&load, "v2").await?;
        let back_us = clock::now_us();
        service.answer(Reply::Snapshot(snapshot(11, "v1")));
        service.appear().await?;
        acked(&service, &record(11, "v1")).await?;
        let again_us = clock::now_us();
        traffic(&load, "v1").await?;
        let results = load.stop().await?;
        results.assert_no_failures();
        let away = results.only(|it| it.start_us >= acked_us && it.end_us < back_us);
        assert!(away.all_served_by("v2"), "{:?}", away.by_version());
        let after = results.after(again_us);
        assert!(after.all_served_by("v1"), "{:?}", after.by_version());
        Ok(())
    });
}

/// Answers that have to be refused, each made of a good one.
fn bad_answers(good: &Snapshot) -> Vec<(&'static str, Reply)> {
    let text = serde_json::to_string(good).expect("serializable");
    let changed = |change: fn(&mut Value)| {
        let mut value = json!(good);
        change(&mut value);
        Reply::Raw(200, value.to_string().into())
    };
    vec![
        ("garbage", Reply::Raw(200, Bytes::from_static(b"\0\xff<html>not a snapshot"))),
        ("half an answer", Reply::Raw(200, text[..text.len() / 2].to_owned().into())),
        ("an empty answer", Reply::Raw(200, Bytes::new())),
        ("an unknown field", changed(|value| value["surprise"] = json!(1))),
        ("an unknown field of a flag", changed(|value| value["flags"][0]["surprise"] = json!(1))),
        ("a wrong hash", changed(|value| value["flags"][0]["hash"] = json!("0123456789abcdef01234567"))),
        ("10 MB", Reply::Raw(200, format!("{text}{}", " ".repeat(10 << 20)).into())),
        ("protocol 9", changed(|value| value["protocol"] = json!(9))),
        ("status 500", Reply::Raw(500, text.clone().into())),
    ]
}

#[test]
fn bad_answers_leave_the_flag_as_it_was() {
    story("bad-answers", async |dir| {
        let mut good = snapshot(10, "v1");
        let service = FakeService::start(Reply::Snapshot(good.clone())).await?;
        let world = World::start(dir, &service, plugin()).await?;
        let load = world.load();
        acked(&service, &good.flags[0]).await?;
        let count = bad_answers(&good).len();
        for index in 0..count {
            let (is, other) = if index % 2 == 0 { ("v1", "v2") } else { ("v2", "v1") };
            let next = snapshot(good.flags[0].epoch + 1, other);
            // The flag it has would be the other one, were it taken.
            let (what, reply) = bad_answers(&next).swap_remove(index);
            service.answer(reply);
            world.fails(what).await?;
            // As many answers by the other version as there are now is all there may be.
            let before = load.live().answered_by(other);
            traffic(&load, is).await?;
            let state = reported(&service, what, |_, _| true).await?;
            assert_eq!((state.epoch, &state.hash), (good.flags[0].epoch, &good.flags[0].hash), "{what}");
            assert_eq!(load.live().answered_by(other), before, "{what}");
            good = next;
            service.answer(Reply::Snapshot(good.clone()));
            acked(&service, &good.flags[0]).await.with_context(|| format!("after {what}"))?;
            traffic(&load, other).await?;
        }
        load.stop().await?.assert_no_failures();
        Ok(())
    });
}

#[test]
fn epochs_only_grow_and_are_used_once() {
    story("epochs", async |dir| {
        let service = FakeService::start(Reply::Snapshot(snapshot(4, "v2"))).await?;
        let world = World::start(dir, &service, plugin()).await?;
        let load = world.load();
        let had = |snapshot: &Snapshot| {
            let revision = snapshot.revision.clone();
            move |received: &Received, _: &FlagState| received.report.revision == revision
        };
        let lower = snapshot(4, "v2");
        let state = reported(&service, "the answer with epoch 4", had(&lower)).await?;
        assert_eq!((state.epoch, state.hash, state.conflicts), (5, record(5, "v1").hash, 0));
        traffic(&load, "v1").await?;

        let same = snapshot(5, "v2");
        service.answer(Reply::Snapshot(same.clone()));
        let with_conflict = |received: &Received, state: &FlagState| had(&same)(received, state) && state.conflicts > 0;
        let state = reported(&service, "the conflict", with_conflict).await?;
        assert_eq!((state.epoch, state.hash), (5, record(5, "v1").hash));
        traffic(&load, "v1").await?;
        assert_eq!(load.live().answered_by("v2"), 0);

        // The same between two answers of the service.
        service.answer(Reply::Snapshot(snapshot(10, "v2")));
        let before = acked(&service, &record(10, "v2")).await?.conflicts;
        let acked_us = clock::now_us();
        let same = snapshot(10, "v1");
        service.answer(Reply::Snapshot(same.clone()));
        let more = |received: &Received, state: &FlagState| had(&same)(received, state) && state.conflicts > before;
        reported(&service, "the second conflict", more).await?;
        let lower = snapshot(9, "v1");
        service.answer(Reply::Snapshot(lower.clone()));
        reported(&service, "the answer with epoch 9", had(&lower)).await?;
        traffic(&load, "v2").await?;

        let results = load.stop().await?;
        results.assert_no_failures();
        let after = results.after(acked_us);
        assert!(after.all_served_by("v2"), "{:?}", after.by_version());
        let refused = [record(4, "v2"), record(5, "v2"), record(10, "v1"), record(9, "v1")].map(|it| it.hash);
        for received in service.reports() {
            let hash = received.report.flags.get(UID).map(|state| &state.hash);
            assert!(!hash.is_some_and(|hash| refused.contains(hash)), "{received:?}");
        }
        Ok(())
    });
}

#[test]
fn a_slow_service_delays_no_request_for_long() {
    story("slow-service", async |dir| {
        let slow = |epoch, active| Reply::Late(Duration::from_secs(3), snapshot(epoch, active));
        let service = FakeService::start(slow(10, "v2")).await?;
        let world = World::start(dir, &service, plugin()).await?;
        let load = world.load();
        traffic(&load, "v1").await?;
        acked(&service, &record(10, "v2")).await?;
        let acked_us = clock::now_us();
        service.answer(slow(11, "v2"));
        acked(&service, &record(11, "v2")).await?;
        traffic(&load, "v2").await?;
        let results = load.stop().await?;
        results.assert_no_failures();
        assert!(results.latency(1.0) < LONGEST, "{:?}", results.latency(1.0));
        assert!(results.after(acked_us).all_served_by("v2"));
        Ok(())
    });
}

#[test]
fn a_bad_configuration_is_refused_at_start() {
    story("bad-configuration", async |dir| {
        let service = FakeService::away().await?;
        let backends = [Backend::start(dir, "v1").await?, Backend::start(dir, "v2").await?];
        type Change = fn(&mut Value);
        let changes: [(&str, Change); 4] = [
            ("surprise", |plugin| plugin["surprise"] = json!(1)),
            ("protocol 9", |plugin| plugin["protocol"] = json!(9)),
            ("hash", |plugin| plugin["flags"][0]["active"] = json!("v2")),
            ("firstAnswerMs", |plugin| plugin["firstAnswerMs"] = json!(10_001)),
        ];
        for (what, change) in changes {
            let mut plugin = plugin();
            change(&mut plugin);
            let config = bootstrap(&backends, &service, plugin, ["reviews-v1", "reviews-v2"], Upstream::H1)?;
            let name = what.replace(' ', "-");
            let options = EnvoyOptions { name: name.clone(), concurrency: 2, ..EnvoyOptions::default() };
            ensure!(Envoy::start_with(dir, options, config).await.is_err(), "Envoy runs with {what}");
            let log = std::fs::read_to_string(dir.file(&format!("{name}.log")))?;
            let line = log.lines().find(|line| line.contains("this configuration is refused"));
            let line = line.with_context(|| format!("{what}: {log}"))?;
            ensure!(line.contains(what), "{what} is not named in {line:?}");
        }
        Ok(())
    });
}

#[test]
fn a_member_stays_in_its_own_version() {
    story("member", async |dir| {
        let service = FakeService::start(Reply::Snapshot(snapshot(10, "v1"))).await?;
        let mut plugin = plugin();
        plugin["workload"] = json!({ "service": "reviews", "version": "v1" });
        let world = World::start(dir, &service, plugin).await?;
        let load = world.load();
        acked(&service, &record(10, "v1")).await?;
        service.answer(Reply::Snapshot(snapshot(11, "v2")));
        acked(&service, &record(11, "v2")).await?;
        let acked_us = clock::now_us();
        traffic(&load, "v1").await?;
        let results = load.stop().await?;
        results.assert_no_failures();
        assert!(!results.after(acked_us).is_empty());
        assert!(results.all_served_by("v1"), "{:?}", results.by_version());
        Ok(())
    });
}
