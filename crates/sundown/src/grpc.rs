//! gRPC's health service over the life of a service (feature `tonic-health`).

use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::app::App;

impl App {
    /// Lets gRPC's health service say SERVING of these services once everything has started, and
    /// NOT_SERVING as soon as the stop begins, while connections are still accepted. The empty name is the
    /// server as a whole.
    ///
    /// ```
    /// use sundown::App;
    /// use tonic::service::Routes;
    ///
    /// let (reporter, health) = tonic_health::server::health_reporter();
    /// let routes = Routes::new(health);
    /// let app = App::new("greeter")
    ///     .grpc_health(reporter, ["", "hello.Greeter"])
    ///     .http("127.0.0.1:50051", routes.into_axum_router());
    /// # let _ = app;
    /// ```
    pub fn grpc_health<N: Into<String>>(
        self,
        reporter: HealthReporter,
        services: impl IntoIterator<Item = N>,
    ) -> Self {
        let services: Vec<String> = services.into_iter().map(Into::into).collect();
        let say = move |status| {
            let (reporter, services) = (reporter.clone(), services.clone());
            async move {
                for service in services {
                    reporter.set_service_status(service, status).await;
                }
            }
        };
        let stopping = say.clone();
        self.on_start("gRPC health", move || say(ServingStatus::Serving))
            .pre_shutdown("gRPC health", move || stopping(ServingStatus::NotServing))
    }
}
