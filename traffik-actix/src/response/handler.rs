//! Functions that answer denied requests.

use std::fmt;
use std::sync::Arc;

use actix_web::HttpResponse;
use futures_util::future::LocalBoxFuture;

/// What they are told.
pub(crate) trait Kind: 'static {
    type Denial<'a>;
}

/// A function that answers denied requests, at once or after a while.
pub(crate) enum DeniedHandler<K: Kind> {
    Now(Arc<NowFn<K>>),
    Later(Arc<dyn Later<K> + Send + Sync>),
}

type NowFn<K> = dyn Fn(&<K as Kind>::Denial<'_>) -> HttpResponse + Send + Sync;

pub(crate) trait Later<K: Kind> {
    fn answer<'a>(&'a self, denial: &'a K::Denial<'a>) -> LocalBoxFuture<'a, HttpResponse>;
}

impl<K: Kind, F: AsyncFn(&K::Denial<'_>) -> HttpResponse> Later<K> for F {
    fn answer<'a>(&'a self, denial: &'a K::Denial<'a>) -> LocalBoxFuture<'a, HttpResponse> {
        Box::pin(self(denial))
    }
}

impl<K: Kind> DeniedHandler<K> {
    pub(crate) fn now<F>(handler: F) -> DeniedHandler<K>
    where
        F: Fn(&K::Denial<'_>) -> HttpResponse + Send + Sync + 'static,
    {
        DeniedHandler::Now(Arc::new(handler))
    }

    pub(crate) fn later<F>(handler: F) -> DeniedHandler<K>
    where
        F: AsyncFn(&K::Denial<'_>) -> HttpResponse + Send + Sync + 'static,
    {
        DeniedHandler::Later(Arc::new(handler))
    }
}

impl<K: Kind> Clone for DeniedHandler<K> {
    fn clone(&self) -> Self {
        match self {
            DeniedHandler::Now(handler) => DeniedHandler::Now(Arc::clone(handler)),
            DeniedHandler::Later(handler) => DeniedHandler::Later(Arc::clone(handler)),
        }
    }
}

impl<K: Kind> fmt::Debug for DeniedHandler<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeniedHandler::Now(_) => "function",
            DeniedHandler::Later(_) => "async function",
        })
    }
}
