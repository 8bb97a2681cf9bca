//! Databases under an operator's hand: what is told of them, what is found wrong in them, and their
//! way from one to another. On SQLite, and on PostgreSQL where a server answers.

mod check;
mod database;
mod needs;
mod program;
mod status;
mod transfer;
