//! The filter in a real Envoy, with a flag service that answers as the tests say.

mod answers;
mod counts;
mod faults;
mod world;
