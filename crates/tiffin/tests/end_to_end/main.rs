//! The reference stack as people meet it: baked, loaded, run, asked, stopped.
//!
//! `ci/e2e` bakes the box once, loads it and names it in the environment; every test here
//! shares it. Containers and volumes are a test's own and end with it.

mod archive;
mod backup;
mod build;
mod capture;
mod changes;
mod customer;
mod databases;
mod external;
mod harness;
mod hostile;
mod https;
mod lookups;
mod machine;
mod manifest;
mod moving;
mod nodes;
mod operator;
mod packaged;
mod progress;
mod reads;
mod roles;
mod rootless;
mod same;
mod settings;
mod steps;
mod storm;
mod units;
mod upgrade;
mod userlands;
mod verbs;
