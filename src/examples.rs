//! The examples at the end of each `--help`. A test reads every line of them as a command line.

pub(crate) const FIRST_STEPS: &str = "\
First steps:
  mimir-tenant-proxy check-config --config proxy.toml --connect
  mimir-tenant-proxy migrate --config proxy.toml
  mimir-tenant-proxy serve --config proxy.toml

Exit codes: 0 good, 1 no, 64 the configuration must be changed, 69 something is not there right now.
A command's own help has examples: mimir-tenant-proxy rules --help";

pub(crate) const SERVE: &str = "\
Examples:
  mimir-tenant-proxy serve --config /etc/mimir-tenant-proxy/proxy.toml

Any key may come from the environment, a secret also from a file:
  MTP__UPSTREAM__URLS=http://mimir:8080 MTP__DATABASE__URL_FILE=/run/secrets/database";

pub(crate) const CHECK_CONFIG: &str = "\
Examples:
  mimir-tenant-proxy check-config --config proxy.toml
      every fault of the file
  mimir-tenant-proxy check-config --config proxy.toml --connect
      also asks the key set, the database and each Mimir; writes nothing
  mimir-tenant-proxy check-config --mimir mimir.yaml --mimir-version 3.1 --mimir-instances 3
      a configuration of Mimir, for known traps
  mimir-tenant-proxy check-config --config proxy.toml --mimir mimir.yaml --strict
      both, and where they contradict each other";

pub(crate) const MIGRATE: &str = "\
Examples:
  mimir-tenant-proxy migrate --config proxy.toml
      brings the tables up to date; run it before a new version
  mimir-tenant-proxy migrate --adopt --config proxy.toml
      takes tables of the same names that were made by other means";

pub(crate) const DEVICE_KEY: &str = "\
Examples:
  mimir-tenant-proxy device-key create --organisation acme --name barn-north --expires-in 365d
      prints the key once
  mimir-tenant-proxy device-key create --organisation acme --name grafana --scopes metrics:read,rules:read
  mimir-tenant-proxy device-key create --organisation acme --name barn-north --certificate hub-17.pem
      no key: the device is known by its certificate
  mimir-tenant-proxy device-key list --organisation acme --json
  mimir-tenant-proxy device-key revoke --organisation acme 6a1a9a3e-5f1c-4d0b-9c58-2f5a0f9b7c11";

pub(crate) const RULES: &str = "\
Examples:
  mimir-tenant-proxy rules check rules.yaml
      needs no configuration and no network
  mimir-tenant-proxy rules diff --organisation acme
      what a sync would change, and which rules are not evaluated
  mimir-tenant-proxy rules sync
  mimir-tenant-proxy rules guard list
      deletions that wait for a confirmation";

pub(crate) const CHANNELS: &str = "\
Examples:
  mimir-tenant-proxy channels diff
  mimir-tenant-proxy channels sync --organisation acme
  mimir-tenant-proxy channels test --organisation acme 6a1a9a3e-5f1c-4d0b-9c58-2f5a0f9b7c11
      sends one test alert and says whether it arrived";

pub(crate) const EXPLAIN_TOKEN: &str = "\
Examples:
  mimir-tenant-proxy explain-token --config proxy.toml < token
      step by step, as serve would check it
  mimir-tenant-proxy explain-token --organisation acme --path \"POST /prometheus/api/v1/query\" < token
      also whether this request would pass
  mimir-tenant-proxy explain-token --key-set jwks.json < token
      without network";

pub(crate) const HEALTHCHECK: &str = "\
Examples:
  mimir-tenant-proxy healthcheck --config proxy.toml
      0 if this copy accepts requests, 1 if not: for a container's HEALTHCHECK";
