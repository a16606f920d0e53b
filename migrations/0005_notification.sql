-- Notification channels and routes as organisations write them, and what the proxy says of them.
--
-- Authors write `notification_channel` and `notification_route` and nothing else here. The other tables are
-- written by the proxy and by triggers alone, and none of them tells of its changes, so that a status never
-- triggers a sync.

create table notification_channel (
    id              uuid primary key default gen_random_uuid(),
    organisation_id text not null references organisation (id) on delete cascade on update cascade,
    name            text not null default '',
    -- webhook, email, slack, pagerduty, opsgenie, telegram, discord, msteams. What is wrong with a row is said
    -- in notification_channel_status and not here, in words for its author.
    kind            text not null,
    settings        jsonb default '{}',
    -- Write-only: {"url": "https://…"} is read back as {"url": "<secret>"}.
    secrets         jsonb default '{}',
    enabled         boolean not null default true,
    -- Whether it gets what no route sends anywhere.
    is_default      boolean not null default false,
    created_at      timestamptz not null default now(),
    updated_at      timestamptz not null default now(),
    -- For routes, whose channel must be their own organisation's.
    unique (id, organisation_id)
);
create index notification_channel_organisation_id on notification_channel (organisation_id);

-- What the column `secrets` stands for. No role of Supabase's API may touch it.
create table notification_channel_secret (
    -- Deferred, because the secrets are put here before the row itself is there.
    channel_id uuid primary key references notification_channel (id) on delete cascade on update cascade
               deferrable initially deferred,
    secrets    jsonb not null
);

create table notification_route (
    id                uuid primary key default gen_random_uuid(),
    organisation_id   text not null,
    channel_id        uuid not null,
    -- Routes are tried in this order; those of one position by their age.
    position          integer not null default 0,
    -- Alertmanager's: ["severity=\"critical\"", "team=~\"a|b\""]. All must match.
    matchers          jsonb default '[]',
    -- ["alertname", "site"]; ["..."] for each alert by itself.
    group_by          jsonb,
    -- Durations are Prometheus': 30s, 5m, 1h30m.
    group_wait        text,
    group_interval    text,
    repeat_interval   text,
    -- Alertmanager's time intervals, in which nothing is sent.
    mute_times        jsonb default '[]',
    -- Whether later routes are tried, too.
    continue_matching boolean not null default false,
    enabled           boolean not null default true,
    created_at        timestamptz not null default now(),
    updated_at        timestamptz not null default now(),
    foreign key (channel_id, organisation_id) references notification_channel (id, organisation_id)
        on delete cascade on update cascade
);
create index notification_route_organisation_id on notification_route (organisation_id);
create index notification_route_channel_id on notification_route (channel_id);

-- What has become of each channel and each route.
create table notification_channel_status (
    channel_id      uuid primary key,
    organisation_id text not null,
    state           text not null check (state in ('pending', 'live', 'invalid', 'over_limit', 'disabled', 'error')),
    -- Why it is not live, in words for its author.
    reason          text not null default '',
    -- The last time that it was written to Mimir.
    synced_at       timestamptz,
    updated_at      timestamptz not null default now()
);
create index notification_channel_status_organisation_id on notification_channel_status (organisation_id);

create table notification_route_status (
    route_id        uuid primary key,
    organisation_id text not null,
    state           text not null check (state in ('pending', 'live', 'invalid', 'over_limit', 'disabled', 'error')),
    reason          text not null default '',
    synced_at       timestamptz,
    updated_at      timestamptz not null default now()
);
create index notification_route_status_organisation_id on notification_route_status (organisation_id);

-- The rows that were deleted, until that has been carried out: a row that is not there and was never
-- deleted is no reason to delete anything.
create table notification_tombstone (
    kind            text not null check (kind in ('channel', 'route')),
    id              uuid not null,
    organisation_id text not null,
    deleted_at      timestamptz not null default now(),
    primary key (organisation_id, kind, id)
);

-- The state of each organisation's document in Mimir's Alertmanager.
create table notification_sync (
    organisation_id text primary key,
    tenant_id       text not null default '',
    -- Of what is not secret in the document.
    document_hash   text,
    state           text not null default '',
    problem         text not null default '',
    problem_since   timestamptz,
    -- A sync that was requested, and the request that the leader has answered last.
    requested_at    timestamptz,
    requested_by    text not null default '',
    answered_at     timestamptz,
    -- What waits for an administrator's confirmation, and the confirmation.
    guard_id        text,
    guard_reason    text not null default '',
    guard_since     timestamptz,
    confirmed_guard text,
    confirmed_by    text not null default '',
    confirmed_at    timestamptz,
    -- Since when the organisation itself is gone.
    absent_since    timestamptz,
    -- The last write to Mimir.
    synced_at       timestamptz
);

create trigger notification_channel_updated before update on notification_channel
    for each row execute function mimir_tenant_proxy_touch();
create trigger notification_route_updated before update on notification_route
    for each row execute function mimir_tenant_proxy_touch();

-- Moves the secrets of a row that is written into notification_channel_secret, and leaves masks.
--
-- "<secret>" keeps what this row has under that key, and means nothing in any other row; a text replaces it;
-- null, an empty text or a missing key removes it. No error repeats a value.
--
-- A secret that is kept must not go where its author did not send it: who may write a row but not read its
-- secrets could give it a new address, of a server of their own. So with a new `url`, or a new kind, nothing is
-- kept.
do $do$
begin
    execute format($create$
        create function mimir_tenant_proxy_keep_secrets() returns trigger
            language plpgsql
            security definer -- authors have no rights on the secrets
            -- Types too are looked for there alone: a temporary one must not run as the owner.
            set search_path = pg_catalog, pg_temp
        as $$
        declare
            given  jsonb := coalesce(new.secrets, '{}');
            stored jsonb := '{}';
            kept   jsonb := '{}';
            fresh  jsonb := '{}';
            masks  jsonb := '{}';
            item   record;
        begin
            -- On a table of somebody else's it would write the secrets of any channel.
            if tg_relid <> '%1$I.notification_channel'::regclass or tg_when <> 'BEFORE' or tg_level <> 'ROW' then
                raise exception 'this trigger belongs to notification_channel' using errcode = 'insufficient_privilege';
            end if;
            if given = 'null' then
                given := '{}';
            end if;
            if jsonb_typeof(given) <> 'object' then
                raise exception 'secrets should be a JSON object, such as {"url": "https://example.com/hook"}'
                    using errcode = 'check_violation';
            end if;
            if octet_length(given::text) > 65536 then
                raise exception 'secrets are larger than 64 KiB' using errcode = 'program_limit_exceeded';
            end if;
            if tg_op = 'UPDATE' then
                select s.secrets into stored from %1$I.notification_channel_secret as s
                    where s.channel_id = old.id for update;
                stored := coalesce(stored, '{}');
            elsif exists (select from %1$I.notification_channel as c
                          where c.id = new.id and c.organisation_id <> new.organisation_id) then
                -- The row itself will be refused, or is left alone (on conflict do nothing).
                new.secrets := '{}';
                return new;
            end if;
            for item in select * from jsonb_each(given) loop
                -- A key is readable: a secret that was written in its place must not be.
                if item.key !~ '^[a-z_]{1,40}$' then
                    raise exception 'a key of secrets should be a plain word, such as url'
                        using errcode = 'check_violation';
                end if;
                if item.value = '"<secret>"' then
                    if tg_op = 'INSERT' then
                        -- A backup that is restored: the secrets themselves come after it.
                        masks := masks || jsonb_build_object(item.key, item.value);
                    elsif stored ? item.key then
                        kept := kept || jsonb_build_object(item.key, stored -> item.key);
                    end if;
                elsif item.value not in ('null', '""') then
                    fresh := fresh || jsonb_build_object(item.key, item.value);
                end if;
            end loop;
            if kept <> '{}' and fresh ? 'url' then
                raise exception 'with a new url all secrets have to be given again, because those that are kept would be sent to it'
                    using errcode = 'check_violation';
            end if;
            if kept <> '{}' and old.kind is distinct from new.kind then
                raise exception 'with a new kind all secrets have to be given again'
                    using errcode = 'check_violation';
            end if;
            kept := kept || fresh;
            if tg_op = 'UPDATE' then
                if kept = stored then
                    null;
                elsif kept = '{}' then
                    delete from %1$I.notification_channel_secret where channel_id = old.id;
                else
                    insert into %1$I.notification_channel_secret (channel_id, secrets) values (old.id, kept)
                        on conflict (channel_id) do update set secrets = excluded.secrets;
                end if;
            elsif kept <> '{}' then
                insert into %1$I.notification_channel_secret (channel_id, secrets) values (new.id, kept)
                    on conflict (channel_id) do update set secrets = excluded.secrets;
            end if;
            new.secrets := masks || (select coalesce(jsonb_object_agg(key, '<secret>'), '{}')
                                     from jsonb_object_keys(kept) as key);
            return new;
        end
        $$
    $create$, current_schema());
end
$do$;
create trigger notification_channel_secrets_kept before insert or update on notification_channel
    for each row execute function mimir_tenant_proxy_keep_secrets();

-- One organisation's rows must not take the room of all others. The arguments are how many there may be, and
-- of what.
create function mimir_tenant_proxy_at_most() returns trigger
    language plpgsql
    security definer -- all rows count, not only those that whoever inserts may see
    set search_path = pg_catalog, pg_temp
as $$
declare
    crowded text;
begin
    execute format('select organisation_id from %I.%I where organisation_id in (select organisation_id from new_rows)
                    group by organisation_id having count(*) > %s limit 1',
                   tg_table_schema, tg_table_name, tg_argv[0]::integer)
        into crowded;
    if crowded is not null then
        raise exception 'an organisation may have % % at most', tg_argv[0], tg_argv[1]
            using errcode = 'program_limit_exceeded';
    end if;
    return null;
end
$$;
create trigger notification_channel_counted after insert on notification_channel
    referencing new table as new_rows
    for each statement execute function mimir_tenant_proxy_at_most('1000', 'notification channels');
create trigger notification_route_counted after insert on notification_route
    referencing new table as new_rows
    for each statement execute function mimir_tenant_proxy_at_most('2000', 'notification routes');

-- A row's deletion, or its move to another organisation, leaves a tombstone; its return takes it away. The
-- arguments are `channel` or `route`, and the columns of the row's ID and of its organisation; your own table
-- can have such a trigger too.
do $do$
begin
    execute format($create$
        create function mimir_tenant_proxy_bury_notification() returns trigger
            language plpgsql
            security definer -- authors have no rights on tombstones
            set search_path = pg_catalog, pg_temp
        as $$
        declare
            gone jsonb := case when tg_op = 'INSERT' then null else pg_catalog.to_jsonb(old) end;
            there jsonb := case when tg_op = 'DELETE' then null else pg_catalog.to_jsonb(new) end;
            -- Identifiers that are no UUIDs must not make a change fail.
            uuids constant text := '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$';
        begin
            if gone ->> tg_argv[1] is not distinct from there ->> tg_argv[1]
                    and gone ->> tg_argv[2] is not distinct from there ->> tg_argv[2] then
                return null;
            end if;
            if gone ->> tg_argv[1] ~* uuids and gone ->> tg_argv[2] is not null then
                insert into %1$I.notification_tombstone (kind, id, organisation_id)
                values (tg_argv[0], (gone ->> tg_argv[1])::uuid, gone ->> tg_argv[2])
                on conflict (organisation_id, kind, id) do update set deleted_at = now();
            end if;
            -- What is there again was not deleted: nothing that vanishes later is explained by it.
            if there ->> tg_argv[1] ~* uuids then
                delete from %1$I.notification_tombstone
                where kind = tg_argv[0] and id = (there ->> tg_argv[1])::uuid
                    and organisation_id = there ->> tg_argv[2];
            end if;
            return null;
        end
        $$
    $create$, current_schema());
end
$do$;
create trigger notification_channel_buried after insert or delete or update of id, organisation_id
    on notification_channel
    for each row execute function mimir_tenant_proxy_bury_notification('channel', 'id', 'organisation_id');
create trigger notification_route_buried after insert or delete or update of id, organisation_id
    on notification_route
    for each row execute function mimir_tenant_proxy_bury_notification('route', 'id', 'organisation_id');

-- Triggers of one event fire in the order of their names: the tombstone is there before the notification.
create trigger notification_channel_changed after insert or update or delete on notification_channel
    for each row execute function mimir_tenant_proxy_notify('notification_channel', 'organisation_id');
create trigger notification_channel_truncated after truncate on notification_channel
    for each statement execute function mimir_tenant_proxy_notify('notification_channel');
create trigger notification_route_changed after insert or update or delete on notification_route
    for each row execute function mimir_tenant_proxy_notify('notification_channel', 'organisation_id');
create trigger notification_route_truncated after truncate on notification_route
    for each statement execute function mimir_tenant_proxy_notify('notification_channel');

alter table notification_channel enable row level security;
alter table notification_channel_secret enable row level security;
alter table notification_route enable row level security;
alter table notification_channel_status enable row level security;
alter table notification_route_status enable row level security;
alter table notification_tombstone enable row level security;
alter table notification_sync enable row level security;

-- These run as the owner: only the triggers above may use them.
revoke execute on function mimir_tenant_proxy_keep_secrets(), mimir_tenant_proxy_at_most(),
    mimir_tenant_proxy_bury_notification() from public;

do $$
declare
    api_role text;
begin
    foreach api_role in array array['anon', 'authenticated'] loop
        if exists (select from pg_roles where rolname = api_role) then
            execute format('revoke all on notification_channel, notification_channel_secret, notification_route,
                            notification_channel_status, notification_route_status, notification_tombstone,
                            notification_sync from %I', api_role);
            -- Supabase gives these roles every new function, too; those of the steps before are covered as well.
            execute format('revoke execute on function mimir_tenant_proxy_keep_secrets(), mimir_tenant_proxy_at_most(),
                            mimir_tenant_proxy_bury_notification(), mimir_tenant_proxy_bury(), mimir_tenant_proxy_count()
                            from %I', api_role);
        end if;
    end loop;
    if exists (select from pg_roles where rolname = 'service_role') then
        revoke all on notification_channel_secret from service_role;
    end if;
    if not exists (select from pg_roles where rolname = 'authenticated') then
        return;
    end if;
    grant select, delete on notification_channel, notification_route to authenticated;
    -- Neither the ID nor, once the row is there, the organisation.
    grant insert (organisation_id, name, kind, settings, secrets, enabled, is_default)
        on notification_channel to authenticated;
    grant update (name, kind, settings, secrets, enabled, is_default) on notification_channel to authenticated;
    grant insert (organisation_id, channel_id, position, matchers, group_by, group_wait, group_interval,
                  repeat_interval, mute_times, continue_matching, enabled) on notification_route to authenticated;
    grant update (channel_id, position, matchers, group_by, group_wait, group_interval, repeat_interval,
                  mute_times, continue_matching, enabled) on notification_route to authenticated;
    grant select on notification_channel_status, notification_route_status to authenticated;
    create policy own_notification_channels on notification_channel for select to authenticated
        using (organisation_id in (select organisation_id from membership
                                   where user_id = (select mimir_tenant_proxy_user())));
    create policy write_own_notification_channels on notification_channel for all to authenticated
        using (organisation_id in (select organisation_id from membership
                                   where user_id = (select mimir_tenant_proxy_user())
                                     and role in ('owner', 'admin', 'editor')))
        with check (organisation_id in (select organisation_id from membership
                                        where user_id = (select mimir_tenant_proxy_user())
                                          and role in ('owner', 'admin', 'editor')));
    create policy own_notification_routes on notification_route for select to authenticated
        using (organisation_id in (select organisation_id from membership
                                   where user_id = (select mimir_tenant_proxy_user())));
    create policy write_own_notification_routes on notification_route for all to authenticated
        using (organisation_id in (select organisation_id from membership
                                   where user_id = (select mimir_tenant_proxy_user())
                                     and role in ('owner', 'admin', 'editor')))
        with check (organisation_id in (select organisation_id from membership
                                        where user_id = (select mimir_tenant_proxy_user())
                                          and role in ('owner', 'admin', 'editor')));
    create policy own_notification_channel_statuses on notification_channel_status for select to authenticated
        using (organisation_id in (select organisation_id from membership
                                   where user_id = (select mimir_tenant_proxy_user())));
    create policy own_notification_route_statuses on notification_route_status for select to authenticated
        using (organisation_id in (select organisation_id from membership
                                   where user_id = (select mimir_tenant_proxy_user())));
end
$$;

-- Supabase Realtime tells pages of changes in the tables of this publication, by the policies above. The
-- channels themselves are not among them.
do $$
declare
    told text;
begin
    if not exists (select from pg_publication where pubname = 'supabase_realtime' and not puballtables) then
        return;
    end if;
    foreach told in array array['alert_rule_status', 'notification_channel_status', 'notification_route_status'] loop
        if not exists (select from pg_publication_tables where pubname = 'supabase_realtime'
                       and schemaname = current_schema() and tablename = told) then
            execute format('alter publication supabase_realtime add table %I.%I', current_schema(), told);
        end if;
    end loop;
exception when insufficient_privilege then
    raise notice 'the tables of statuses were not added to the publication supabase_realtime: its owner has to';
end
$$;
