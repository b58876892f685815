//! Tests of evaluation: stories of single rules, Redis as the oracle of replies, and a simulation
//! of clusters that must agree.

mod blocking;
mod cases;
mod cover;
mod dump;
mod geo;
mod lies;
mod lists;
mod merge_cases;
mod part_cases;
mod parts;
mod redis;
mod scans;
mod sets;
mod simulation;
mod sort;
mod switched;
mod world;
mod zsets;
