//! The runtime in the hands of a host: any kind of program, from start to stop.

mod control;
mod figures;
mod follow;
mod hosts;
mod parts;
mod start;
mod stop;
