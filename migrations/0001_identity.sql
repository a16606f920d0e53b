-- Organisations, their members, their devices' keys, and tokens revoked before they expire.
--
-- Names are not qualified: `mimir-tenant-proxy migrate` creates them in the schema of
-- `database.schema`, psql in the first one of its search_path.

create table organisation (
    -- What a tenant ID may consist of (Mimir), and of a UUID only the spelling in lower case: two
    -- spellings must not be two organisations.
    id         text primary key default gen_random_uuid()::text
               check (id ~ '^[0-9A-Za-z!_.*''()-]{1,150}$' and id not in ('.', '..'))
               check (id !~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' or id = lower(id)),
    name       text not null default '',
    created_at timestamptz not null default now()
);

create table membership (
    user_id         uuid not null,
    organisation_id text not null references organisation (id) on delete cascade on update cascade,
    -- owner, admin, editor, viewer, or whatever the section [roles] of the configuration knows.
    role            text not null default 'viewer',
    -- The one that is meant when a member of several names none.
    is_default      boolean not null default false,
    created_at      timestamptz not null default now(),
    primary key (user_id, organisation_id)
);
create index membership_organisation_id on membership (organisation_id);
create unique index membership_one_default on membership (user_id) where is_default;

create table device_key (
    id              uuid primary key default gen_random_uuid(),
    organisation_id text not null references organisation (id) on delete cascade on update cascade,
    name            text not null check (length(name) between 1 and 200),
    -- SHA-256 of the key. The key has 256 random bits, so that a slow hash would add nothing.
    key_hash        bytea not null unique check (octet_length(key_hash) = 32),
    -- The key's first characters, by which its owner recognises it.
    key_hint        text not null default '',
    scopes          text[] not null default '{metrics:write}'
                    check (cardinality(scopes) > 0
                           and scopes <@ array['metrics:read', 'metrics:write', 'rules:read']),
    expires_at      timestamptz,
    -- How long an expired key goes on working, with a warning, so that nobody's telemetry ends
    -- because nobody looked at a calendar.
    grace_seconds   integer not null default 604800 check (grace_seconds >= 0),
    revoked_at      timestamptz,
    -- Written in batches: right to within a minute or so.
    last_used_at    timestamptz,
    created_at      timestamptz not null default now(),
    created_by      text not null default ''
);
create index device_key_organisation_id on device_key (organisation_id);

create table revocation (
    id            uuid primary key default gen_random_uuid(),
    kind          text not null check (kind in ('sub', 'session_id', 'jti')),
    value         text not null check (length(value) between 1 and 200),
    -- Only tokens issued until then; all if it is null.
    issued_before timestamptz,
    -- When this row stops to count; never if it is null.
    expires_at    timestamptz,
    reason        text not null default '',
    created_at    timestamptz not null default now(),
    created_by    text not null default ''
);
create index revocation_value on revocation (kind, value);

-- A change tells every proxy at once which thing to read anew. The arguments are the kind of thing
-- and the column that names it; your own tables can have such triggers too. The payload is only a
-- hint and holds no data.
create function mimir_tenant_proxy_notify() returns trigger
    language plpgsql
    set search_path = ''
    set bytea_output = 'hex'
as $$
begin
    if tg_level = 'STATEMENT' then
        perform pg_catalog.pg_notify('mimir_tenant_proxy', tg_argv[0]);
        return null;
    end if;
    if tg_op <> 'DELETE' then
        perform pg_catalog.pg_notify('mimir_tenant_proxy',
            tg_argv[0] || ' ' || (pg_catalog.to_jsonb(new) ->> tg_argv[1]));
    end if;
    if tg_op <> 'INSERT' then
        perform pg_catalog.pg_notify('mimir_tenant_proxy',
            tg_argv[0] || ' ' || (pg_catalog.to_jsonb(old) ->> tg_argv[1]));
    end if;
    return null;
end
$$;

create trigger membership_changed after insert or update or delete on membership
    for each row execute function mimir_tenant_proxy_notify('membership', 'user_id');
create trigger membership_truncated after truncate on membership
    for each statement execute function mimir_tenant_proxy_notify('membership');

-- Not on last_used_at, which the proxy itself writes.
create trigger device_key_changed
    after insert or delete or update of organisation_id, name, key_hash, scopes, expires_at, grace_seconds, revoked_at
    on device_key
    for each row execute function mimir_tenant_proxy_notify('device_key', 'key_hash');
create trigger device_key_truncated after truncate on device_key
    for each statement execute function mimir_tenant_proxy_notify('device_key');

create trigger revocation_changed after insert or update or delete or truncate on revocation
    for each statement execute function mimir_tenant_proxy_notify('revocation');

-- Row-level security: whoever comes through Supabase's API reads what is their own and writes
-- nothing. The owner of the tables, as whom the proxy connects, is not subject to it.
alter table organisation enable row level security;
alter table membership enable row level security;
alter table device_key enable row level security;
alter table revocation enable row level security;

-- The user of the token that came through PostgREST; the same as auth.uid(), which is there only
-- on Supabase.
create function mimir_tenant_proxy_user() returns uuid
    language sql
    stable
    set search_path = ''
as $$
    select (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid
$$;

do $$
declare
    api_role text;
begin
    -- Supabase gives these roles everything on new tables. Row-level security does not cover
    -- TRUNCATE, so what they do not need is taken away.
    foreach api_role in array array['anon', 'authenticated'] loop
        if exists (select from pg_roles where rolname = api_role) then
            execute format('revoke all on organisation, membership, device_key, revocation from %I', api_role);
        end if;
    end loop;
    if not exists (select from pg_roles where rolname = 'authenticated') then
        return;
    end if;
    execute format('grant usage on schema %I to authenticated', current_schema());
    grant select on organisation, membership to authenticated;
    -- Everything but the hash.
    grant select (id, organisation_id, name, key_hint, scopes, expires_at, grace_seconds, revoked_at,
                  last_used_at, created_at, created_by) on device_key to authenticated;
    create policy own_memberships on membership for select to authenticated
        using (user_id = (select mimir_tenant_proxy_user()));
    create policy own_organisations on organisation for select to authenticated
        using (id in (select organisation_id from membership
                      where user_id = (select mimir_tenant_proxy_user())));
    -- By the names that these roles have in our configuration unless it says otherwise.
    create policy own_device_keys on device_key for select to authenticated
        using (organisation_id in (select organisation_id from membership
                                   where user_id = (select mimir_tenant_proxy_user())
                                     and role in ('owner', 'admin')));
end
$$;
