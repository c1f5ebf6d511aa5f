//! By which route a request has found its handler.

use http::Extensions;

/// The route, where axum has found one.
#[cfg(feature = "axum")]
pub(super) fn of(extensions: &Extensions) -> Option<String> {
    let route = extensions.get::<axum::extract::MatchedPath>()?;
    Some(route.as_str().to_owned())
}

/// None: nobody says it.
#[cfg(not(feature = "axum"))]
pub(super) fn of(_extensions: &Extensions) -> Option<String> {
    None
}
