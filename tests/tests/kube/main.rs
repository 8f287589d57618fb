//! What runs on a real Kubernetes API. One program, so that what all tests need is built once.

mod api;
mod callers;
mod checks;
mod cleanup;
mod cli;
mod control_plane;
mod damage;
mod dashboard;
mod doctor;
mod example;
mod faults;
mod gateway;
mod group;
mod helm;
mod image;
mod istio;
mod killed;
mod leaders;
mod refused;
mod scale;
mod switch;
