-- What each copy of the proxy says of itself, so that no alert event ends, and no device is silent, because a copy
-- could not write what it was told: the leader sees only what is in the database.

create table alert_event_copy (
    -- Of one process.
    id      uuid primary key,
    -- When it last said that it writes what it receives.
    seen_at timestamptz not null,
    -- The uses of device keys that it noted before this time are written; infinity: it has stopped, and all are.
    uses_at timestamptz not null
);

-- Until when reports of an organisation's alerts may not have arrived; the row '' is that of all organisations.
create table alert_event_gap (
    organisation_id text primary key,
    ended_at        timestamptz not null
);

alter table alert_event_copy enable row level security;
alter table alert_event_gap enable row level security;

do $$
declare
    api_role text;
begin
    foreach api_role in array array['anon', 'authenticated', 'service_role'] loop
        if exists (select from pg_roles where rolname = api_role) then
            execute format('revoke all on alert_event_copy, alert_event_gap from %I', api_role);
        end if;
    end loop;
end
$$;
