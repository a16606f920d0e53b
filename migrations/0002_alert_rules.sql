-- Alert rules as organisations write them, and what the proxy says of them.
--
-- Whoever writes rules writes `alert_rule` and nothing else here. The other tables are written by
-- the proxy alone, and none of them tells of its changes, so that a status never triggers a sync.

create table alert_rule (
    id                  uuid primary key default gen_random_uuid(),
    organisation_id     text not null references organisation (id) on delete cascade on update cascade,
    name                text not null,
    expr                text not null,
    -- Durations are Prometheus': 30s, 5m, 1h30m. What is wrong with a row is said in
    -- alert_rule_status and not here: whoever writes it shall see it in words.
    for_duration        text default '0s',
    keep_firing_for     text default '0s',
    rule_group          text default 'default',
    evaluation_interval text default '1m',
    labels              jsonb default '{}',
    annotations         jsonb default '{}',
    enabled             boolean not null default true,
    -- Rules keep their places by their age.
    created_at          timestamptz not null default now(),
    updated_at          timestamptz not null default now()
);
create index alert_rule_organisation_id on alert_rule (organisation_id);

-- What has become of each rule.
create table alert_rule_status (
    rule_id         uuid primary key,
    organisation_id text not null,
    state           text not null check (state in ('pending', 'live', 'invalid', 'over_limit', 'disabled', 'error')),
    -- Why it is not live, in words for its author.
    reason          text not null default '',
    -- What is live, if anything is, and since when.
    rule_hash       text,
    synced_at       timestamptz,
    -- What Mimir has refused, if it is that.
    refused_hash    text,
    updated_at      timestamptz not null default now()
);
create index alert_rule_status_organisation_id on alert_rule_status (organisation_id);

-- The rows that were deleted, until that has been carried out: a row that is not there and was never
-- deleted is no reason to delete anything.
create table alert_rule_tombstone (
    rule_id         uuid not null,
    organisation_id text not null,
    deleted_at      timestamptz not null default now(),
    primary key (organisation_id, rule_id)
);

-- How it stands with each organisation that has ever had rules in Mimir.
create table alert_rule_sync (
    organisation_id text primary key,
    tenant_id       text not null,
    -- Rules that are live.
    live            integer not null default 0,
    -- Enabled rules that are not.
    not_live        integer not null default 0,
    -- The last time that something was written to Mimir.
    synced_at       timestamptz,
    problem         text not null default '',
    problem_since   timestamptz,
    -- Since when the organisation itself is gone.
    absent_since    timestamptz,
    -- A deletion that waits for an administrator's word, and the word.
    guard_id        text,
    guard_reason    text not null default '',
    guard_since     timestamptz,
    confirmed_guard text,
    confirmed_by    text not null default '',
    confirmed_at    timestamptz,
    -- Limits that Mimir has shown by refusing something: it does not tell all that it has.
    shown_rules_per_group integer,
    shown_groups    integer
);

-- Which proxy writes, and when it last saw to everything.
create table alert_rule_leader (
    only_one        boolean primary key default true check (only_one),
    holder          text not null default '',
    since           timestamptz,
    reconciled_at   timestamptz,
    reconcile       jsonb not null default '{}',
    guard_id        text,
    guard_reason    text not null default '',
    guard_since     timestamptz,
    confirmed_guard text,
    confirmed_by    text not null default '',
    confirmed_at    timestamptz
);
insert into alert_rule_leader default values;

-- Syncs that somebody asked for.
create table alert_rule_sync_request (
    id              uuid primary key default gen_random_uuid(),
    -- All of them if it is null.
    organisation_id text,
    requested_by    text not null default '',
    requested_at    timestamptz not null default now(),
    started_at      timestamptz,
    finished_at     timestamptz,
    done            integer not null default 0,
    total           integer not null default 0,
    outcome         jsonb not null default '{}'
);
create index alert_rule_sync_request_requested_at on alert_rule_sync_request (requested_at);
-- Whoever asks while somebody's question waits waits for the same answer.
create unique index alert_rule_sync_request_waiting on alert_rule_sync_request ((coalesce(organisation_id, '')))
    where started_at is null;

create function mimir_tenant_proxy_touch() returns trigger
    language plpgsql
    set search_path = ''
as $$
begin
    new.updated_at = now();
    return new;
end
$$;
create trigger alert_rule_updated before update on alert_rule
    for each row execute function mimir_tenant_proxy_touch();

-- One organisation's rows must not take the room of all others.
create function mimir_tenant_proxy_count() returns trigger
    language plpgsql
    security definer -- all rows count, not only those that whoever inserts may see
    set search_path = pg_catalog, pg_temp
as $$
declare
    crowded text;
begin
    execute format('select organisation_id from %I.%I where organisation_id in (select organisation_id from new_rows)
                    group by organisation_id having count(*) > 5000 limit 1', tg_table_schema, tg_table_name)
        into crowded;
    if crowded is not null then
        raise exception 'an organisation may have 5000 alert rules at most' using errcode = 'program_limit_exceeded';
    end if;
    return null;
end
$$;
revoke execute on function mimir_tenant_proxy_count() from public;
create trigger alert_rule_counted after insert on alert_rule
    referencing new table as new_rows
    for each statement execute function mimir_tenant_proxy_count();

-- A row's deletion, or its move to another organisation, leaves a tombstone; its return takes it
-- away. The arguments are the
-- columns of the rule and of its organisation; your own table can have such a trigger too.
do $do$
begin
    execute format($create$
        create function mimir_tenant_proxy_bury() returns trigger
            language plpgsql
            security definer -- whoever deletes a rule has no rights on tombstones
            -- Types too are looked for there alone: a temporary one must not run as the owner.
            set search_path = pg_catalog, pg_temp
        as $$
        declare
            gone jsonb := case when tg_op = 'INSERT' then null else pg_catalog.to_jsonb(old) end;
            there jsonb := case when tg_op = 'DELETE' then null else pg_catalog.to_jsonb(new) end;
            -- Somebody's own identifiers that are no UUIDs must not make a change fail.
            uuids constant text := '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$';
        begin
            if gone ->> tg_argv[0] is not distinct from there ->> tg_argv[0]
                    and gone ->> tg_argv[1] is not distinct from there ->> tg_argv[1] then
                return null;
            end if;
            if gone ->> tg_argv[0] ~* uuids and gone ->> tg_argv[1] is not null then
                insert into %1$I.alert_rule_tombstone (rule_id, organisation_id)
                values ((gone ->> tg_argv[0])::uuid, gone ->> tg_argv[1])
                on conflict (organisation_id, rule_id) do update set deleted_at = now();
            end if;
            -- What is there again was not deleted: nothing that vanishes later is explained by it.
            if there ->> tg_argv[0] ~* uuids then
                delete from %1$I.alert_rule_tombstone
                where rule_id = (there ->> tg_argv[0])::uuid and organisation_id = there ->> tg_argv[1];
            end if;
            return null;
        end
        $$
    $create$, current_schema());
end
$do$;
revoke execute on function mimir_tenant_proxy_bury() from public;
create trigger alert_rule_buried after insert or delete or update of id, organisation_id on alert_rule
    for each row execute function mimir_tenant_proxy_bury('id', 'organisation_id');

-- Triggers of one event fire in the order of their names: the tombstone is there before the news.
create trigger alert_rule_changed after insert or update or delete on alert_rule
    for each row execute function mimir_tenant_proxy_notify('alert_rule', 'organisation_id');
create trigger alert_rule_truncated after truncate on alert_rule
    for each statement execute function mimir_tenant_proxy_notify('alert_rule');
create trigger organisation_changed after insert or update or delete on organisation
    for each row execute function mimir_tenant_proxy_notify('alert_rule', 'id');
create trigger organisation_truncated after truncate on organisation
    for each statement execute function mimir_tenant_proxy_notify('alert_rule');
create trigger alert_rule_sync_requested after insert on alert_rule_sync_request
    for each statement execute function mimir_tenant_proxy_notify('alert_rule_request');

alter table alert_rule enable row level security;
alter table alert_rule_status enable row level security;
alter table alert_rule_tombstone enable row level security;
alter table alert_rule_sync enable row level security;
alter table alert_rule_leader enable row level security;
alter table alert_rule_sync_request enable row level security;

do $$
declare
    api_role text;
begin
    foreach api_role in array array['anon', 'authenticated'] loop
        if exists (select from pg_roles where rolname = api_role) then
            execute format('revoke all on alert_rule, alert_rule_status, alert_rule_tombstone, alert_rule_sync,
                            alert_rule_leader, alert_rule_sync_request from %I', api_role);
        end if;
    end loop;
    if not exists (select from pg_roles where rolname = 'authenticated') then
        return;
    end if;
    grant select, delete on alert_rule to authenticated;
    grant insert (organisation_id, name, expr, for_duration, keep_firing_for, rule_group, evaluation_interval,
                  labels, annotations, enabled) on alert_rule to authenticated;
    grant update (name, expr, for_duration, keep_firing_for, rule_group, evaluation_interval,
                  labels, annotations, enabled) on alert_rule to authenticated;
    grant select on alert_rule_status to authenticated;
    create policy own_alert_rules on alert_rule for select to authenticated
        using (organisation_id in (select organisation_id from membership
                                   where user_id = (select mimir_tenant_proxy_user())));
    create policy write_own_alert_rules on alert_rule for all to authenticated
        using (organisation_id in (select organisation_id from membership
                                   where user_id = (select mimir_tenant_proxy_user())
                                     and role in ('owner', 'admin', 'editor')))
        with check (organisation_id in (select organisation_id from membership
                                        where user_id = (select mimir_tenant_proxy_user())
                                          and role in ('owner', 'admin', 'editor')));
    create policy own_alert_rule_statuses on alert_rule_status for select to authenticated
        using (organisation_id in (select organisation_id from membership
                                   where user_id = (select mimir_tenant_proxy_user())));
end
$$;
