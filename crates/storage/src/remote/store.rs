//! Clients of stores.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path as Key;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use super::failure::failure;
use super::held::held;
use crate::address::{Address, Scheme, url};

/// Times that a request is sent again which failed on the way or at the server.
const RETRIES: usize = 6;
/// None is sent again later than this.
const RETRIED_FOR: Duration = Duration::from_secs(90);

/// A store, and the name of something in it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) key: Key,
    pub(super) address: Address,
}

impl Place {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let address = Address::of(path)?;
        if address.is_url() {
            // The key is part of the URL, as it was given.
            let store = client_of_url(path, &address).map_err(|error| failure(&error, &address))?;
            return Ok(Self { store, key: Key::default(), address });
        }
        let key = Key::parse(&address.key).map_err(|error| failure(&error.into(), &address))?;
        let known = held().and_then(|held| held.stores.get(&(address.scheme, address.host.clone())).cloned());
        let store = match known {
            Some(store) => store,
            None => {
                let made = client(&address).map_err(|error| failure(&error, &address))?;
                if let Some(mut held) = held() {
                    held.stores.insert((address.scheme, address.host.clone()), Arc::clone(&made));
                }
                made
            }
        };
        Ok(Self { store, key, address })
    }

    pub(super) fn failure(&self, error: &object_store::Error) -> io::Error {
        failure(error, &self.address)
    }
}

fn client(address: &Address) -> object_store::Result<Arc<dyn ObjectStore>> {
    use_ring();
    let name = &address.host;
    Ok(match address.scheme {
        Scheme::S3 => Arc::new(AmazonS3Builder::from_env().with_bucket_name(name).with_retry(retries()).build()?),
        Scheme::Gs => {
            Arc::new(GoogleCloudStorageBuilder::from_env().with_bucket_name(name).with_retry(retries()).build()?)
        }
        Scheme::Az => {
            Arc::new(MicrosoftAzureBuilder::from_env().with_container_name(name).with_retry(retries()).build()?)
        }
        Scheme::Https | Scheme::Http => unreachable!("URLs have clients of their own"),
    })
}

fn client_of_url(path: &Path, address: &Address) -> object_store::Result<Arc<dyn ObjectStore>> {
    use_ring();
    // Of https no redirect leads to http.
    let options = ClientOptions::new().with_allow_http(address.scheme == Scheme::Http);
    let builder = HttpBuilder::new().with_url(url(path)).with_client_options(options).with_retry(retries());
    Ok(Arc::new(builder.build()?))
}

fn retries() -> RetryConfig {
    RetryConfig { max_retries: RETRIES, retry_timeout: RETRIED_FOR, ..RetryConfig::default() }
}

/// Lets TLS use ring, unless the program has chosen something already.
fn use_ring() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
