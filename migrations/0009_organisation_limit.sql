-- Limits of single organisations (docs/operations/limits.md). A row sets one limit, by the name that it has
-- in [limits] of the configuration, also those of each device of the organisation (device_…).

create table organisation_limit (
    organisation_id text not null references organisation (id) on delete cascade on update cascade,
    -- Such as push_requests_per_second. The proxy knows the names, and says which rows it does not know.
    name            text not null check (name ~ '^[a-z_]{1,60}$'),
    -- A number, or a size such as 1MiB; none is no limit. Zero is refused: it may be meant as either.
    value           text not null check (value ~ '^(none|0*[1-9][0-9]{0,14} ?(B|KiB|MiB|GiB)?)$'),
    created_at      timestamptz not null default now(),
    primary key (organisation_id, name)
);

create trigger organisation_limit_changed after insert or update or delete or truncate on organisation_limit
    for each statement execute function mimir_tenant_proxy_notify('organisation_limit');

-- The operator's, like what they may pay for: nobody who comes through Supabase's API writes or reads them.
alter table organisation_limit enable row level security;
do $$
declare
    api_role text;
begin
    foreach api_role in array array['anon', 'authenticated'] loop
        if exists (select from pg_roles where rolname = api_role) then
            execute format('revoke all on organisation_limit from %I', api_role);
        end if;
    end loop;
end
$$;
