//! The filter in a real Envoy, with a flag service that answers as the tests say.

mod counts;
mod faults;
mod world;
