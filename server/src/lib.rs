//! The HTTP server of gleitzeit: today `GET /healthz`.
//!
//! The only package that listens. [`Server`] listens by itself, as `gleitzeit serve` does; an
//! [`Api`] is mounted in a host's own actix-web app, under any prefix:
//!
//! ```
//! use actix_web::{App, web};
//! use gleitzeit::{Runtime, Settings};
//! use gleitzeit_server::Api;
//!
//! # #[actix_web::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = Settings::from_toml("[storage]\nurl = \"memory\"")?;
//! let runtime = Runtime::builder(settings).without_settings_providers().start().await?;
//! let api = Api::new(runtime.handle());
//! let app = move || {
//!     let api = api.clone();
//!     App::new().service(web::scope("/gleitzeit").configure(|config| api.configure(config)))
//! };
//! # let service = actix_web::test::init_service(app()).await;
//! # let request = actix_web::test::TestRequest::with_uri("/gleitzeit/healthz").to_request();
//! # assert_eq!(actix_web::test::call_service(&service, request).await.status(), 200);
//! # runtime.stop(std::time::Duration::from_secs(5)).await;
//! # Ok(())
//! # }
//! ```

mod api;
mod connection;
mod health;
mod server;

pub use api::Api;
pub use server::{Limits, Server};
