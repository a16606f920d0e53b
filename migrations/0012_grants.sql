-- What the roles of Supabase's API may do, granted by name.
--
-- The steps before grant to authenticated alone. service_role, as which a backend with the project's secret key comes,
-- relied on Supabase, which gave its roles everything on new tables. Projects that were created since 30 May 2026 give
-- nothing, and from 30 October 2026 no project does. service_role bypasses row-level security, and no grants.
--
-- Nothing is taken away here: older projects keep what they gave. A later step that makes a table has to grant on it.
-- Every statement can be run again, so that `migrate --adopt` works for tables that another tool made from these files.
--
-- Of a role that is not the owner, PostgreSQL would only warn that nothing was granted, and the step would count as
-- taken. So it fails.

do $$
declare
    ours constant oid := (select oid from pg_namespace where nspname = current_schema());
    caller text;
    wanted record;
begin
    foreach caller in array array['authenticated', 'service_role'] loop
        continue when not exists (select from pg_roles where rolname = caller);
        -- A role that makes tables in another role's schema cannot grant the use of it. Its owner can, later.
        if has_schema_privilege(ours, 'usage with grant option') then
            execute format('grant usage on schema %I to %I', current_schema(), caller);
        elsif not has_schema_privilege(caller, ours, 'usage') then
            raise warning 'the role % may not use the schema %; grant it as the owner of the schema',
                caller, current_schema();
        end if;
        -- Policies call it with the rights of the role that reads. That role has none by default after
        -- `alter default privileges revoke execute on functions from public`. Trigger functions need no such right.
        if not has_function_privilege('mimir_tenant_proxy_user()', 'execute with grant option') then
            raise exception 'only the owner of the function mimir_tenant_proxy_user may grant it'
                using errcode = 'insufficient_privilege';
        end if;
        execute format('grant execute on function mimir_tenant_proxy_user() to %I', caller);
    end loop;
    if not exists (select from pg_roles where rolname = 'service_role') then
        return;
    end if;
    for wanted in
        select c.relname as name, c.relowner as owner, rights.list
        from (values
            ('organisation', 'select, insert, update, delete'),
            ('membership', 'select, insert, update, delete'),
            ('device_key', 'select, insert, update, delete'),
            ('revocation', 'select, insert, update, delete'),
            ('organisation_limit', 'select, insert, update, delete'),
            ('alert_rule', 'select, insert, update, delete'),
            -- Its column of secrets has masks. The secrets themselves are in notification_channel_secret, which is
            -- nobody's but the owner's.
            ('notification_channel', 'select, insert, update, delete'),
            ('notification_route', 'select, insert, update, delete'),
            -- Those of organisations that are in the operator's own tables are deleted by the operator.
            ('alert_event', 'select, delete'),
            ('alert_rule_status', 'select'),
            ('alert_rule_sync', 'select'),
            ('notification_channel_status', 'select'),
            ('notification_route_status', 'select'),
            ('notification_sync', 'select')
        ) as rights (name, list)
        join pg_class as c on c.relname = rights.name and c.relnamespace = ours
    loop
        if not pg_has_role(wanted.owner, 'usage') then
            raise exception 'only the owner of the table % may grant it', wanted.name
                using errcode = 'insufficient_privilege';
        end if;
        execute format('grant %s on %I.%I to service_role', wanted.list, current_schema(), wanted.name);
    end loop;
end
$$;
