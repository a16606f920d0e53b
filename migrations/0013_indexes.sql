-- Indexes for what an organisation may have very many of: its revoked device keys stay, and its administrators may ask
-- for one sync after the other. Without them its statements get slower with each, and hold up those of others.

create index if not exists device_key_created_at on device_key (organisation_id, created_at);
create index if not exists device_key_not_revoked on device_key (organisation_id) where revoked_at is null;
create index if not exists alert_rule_sync_request_unfinished on alert_rule_sync_request (requested_at)
    where finished_at is null;
