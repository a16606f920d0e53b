-- Alerts that fire, and devices that went silent, as rows: one row from a beginning to its end. The
-- proxy writes them, the organisation's members read them, and whatever is to happen beside that is a
-- trigger of your own on alert_event.

create table alert_event (
    id              uuid primary key default gen_random_uuid(),
    -- No foreign key: the organisations may be in tables of your own.
    organisation_id text not null,
    kind            text not null check (kind in ('alert', 'device_silent')),
    -- The row of alert_rule; null for rules that are not of that table. It stays when the rule goes.
    rule_id         uuid,
    -- The row of device_key, of a silent device.
    device_key_id   uuid,
    -- Of the labels, as Alertmanager's API has it.
    fingerprint     text not null,
    labels          jsonb not null default '{}',
    annotations     jsonb not null default '{}',
    state           text not null check (state in ('firing', 'resolved')),
    started_at      timestamptz not null,
    ended_at        timestamptz,
    -- resolved: the rule says so. expired: it was not reported any more. reported: the device
    -- reports again. withdrawn: the device's key was revoked or has expired, or nobody watches it any more.
    ended_because   text check (ended_because in ('resolved', 'expired', 'reported', 'withdrawn')),
    created_at      timestamptz not null default now(),
    updated_at      timestamptz not null default now(),
    check ((state = 'firing') = (ended_at is null)),
    check ((state = 'firing') = (ended_because is null))
);
-- Nothing is open twice.
create unique index alert_event_open on alert_event (organisation_id, fingerprint) where state = 'firing';
create index alert_event_fingerprint on alert_event (organisation_id, fingerprint, ended_at);
create index alert_event_organisation_id on alert_event (organisation_id, started_at desc);
create index alert_event_ended_at on alert_event (ended_at) where state = 'resolved';

-- What is known of each start of an alert, from which the proxy makes the rows of alert_event. The
-- ruler repeats itself every minute; what it repeats changes these rows only, so that a row of
-- alert_event changes when there is something to see. Each column only ever grows, so it does not
-- matter in which order, how often or to which copies something was reported.
create table alert_event_start (
    organisation_id  text not null,
    fingerprint      text not null,
    started_at       timestamptz not null,
    event_id         uuid not null references alert_event (id) on delete cascade,
    -- Until when it fires, unless it is reported again.
    valid_until      timestamptz,
    -- When it was last reported as firing, by the clock of the copy that was told.
    firing_seen_at   timestamptz,
    resolved_at      timestamptz,
    resolved_seen_at timestamptz,
    -- The value of valid_until at which the leader gave it up.
    expired_at       timestamptz,
    primary key (organisation_id, fingerprint, started_at)
);
create index alert_event_start_event_id on alert_event_start (event_id);

-- Since when a leader has been watching without a break: what was not reported before that may be the
-- fault of the proxy or of the database.
create table alert_event_watch (
    only_one       boolean primary key default true check (only_one),
    watching_since timestamptz not null default '-infinity',
    watched_at     timestamptz not null default '-infinity'
);
insert into alert_event_watch default values;

-- For how long a device may be silent, such as 15m or 1d; null: nobody is told.
alter table organisation add column device_silent_after text
    check (device_silent_after ~ '^([0-9]{1,9}(ms|[smhdwy]))+$');

-- Where the organisations are in our table, their events go with them.
create function mimir_tenant_proxy_forget_events() returns trigger
    language plpgsql
    security definer -- whoever deletes an organisation has no rights on its events
    set search_path = pg_catalog, pg_temp
as $$
begin
    execute format('delete from %I.alert_event where organisation_id = $1', tg_table_schema) using old.id;
    return null;
end
$$;
revoke execute on function mimir_tenant_proxy_forget_events() from public;
create trigger organisation_events_forgotten after delete on organisation
    for each row execute function mimir_tenant_proxy_forget_events();

alter table alert_event enable row level security;
alter table alert_event_start enable row level security;
alter table alert_event_watch enable row level security;

do $$
declare
    api_role text;
begin
    foreach api_role in array array['anon', 'authenticated'] loop
        if exists (select from pg_roles where rolname = api_role) then
            execute format('revoke all on alert_event, alert_event_start, alert_event_watch from %I', api_role);
        end if;
    end loop;
    if not exists (select from pg_roles where rolname = 'authenticated') then
        return;
    end if;
    grant select on alert_event to authenticated;
    create policy own_alert_events on alert_event for select to authenticated
        using (organisation_id in (select organisation_id from membership
                                   where user_id = (select mimir_tenant_proxy_user())));
    -- For how long their devices may be silent is for those who manage them.
    grant update (device_silent_after) on organisation to authenticated;
    create policy write_own_device_silent_after on organisation for update to authenticated
        using (id in (select organisation_id from membership
                      where user_id = (select mimir_tenant_proxy_user())
                        and role in ('owner', 'admin')))
        with check (id in (select organisation_id from membership
                           where user_id = (select mimir_tenant_proxy_user())
                             and role in ('owner', 'admin')));
end
$$;

-- Supabase Realtime brings the rows of this publication to web pages, by the policies above.
do $$
declare
    added text;
begin
    if not exists (select from pg_publication where pubname = 'supabase_realtime' and not puballtables) then
        return;
    end if;
    foreach added in array array['alert_event', 'alert_rule_status', 'notification_channel_status'] loop
        continue when to_regclass(format('%I.%I', current_schema(), added)) is null;
        continue when exists (select from pg_publication_tables where pubname = 'supabase_realtime'
                              and schemaname = current_schema() and tablename = added);
        execute format('alter publication supabase_realtime add table %I.%I', current_schema(), added);
    end loop;
exception when insufficient_privilege then
    raise warning 'alert_event is not in the publication supabase_realtime: %; add it as the owner of the publication', sqlerrm;
end
$$;
