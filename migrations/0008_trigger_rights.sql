-- Trigger functions that run as the owner, and the size of rows.

-- Such a function is a way to the owner's rights for whoever may attach it to a table of their own, and
-- Supabase gives its API roles every new function. So each of them
-- * is nobody's to execute: triggers that are there fire without that right;
-- * asks which table fired it, and does nothing for another;
-- * names the schema of our tables as it was at the migration, not as the caller or the fired table has it;
-- * looks in the caller's temporary schema last, and never finds a table there that it names.
do $do$
begin
    execute format($create$
        -- One organisation's rows must not take the room of all others.
        create or replace function mimir_tenant_proxy_count() returns trigger
            language plpgsql
            security definer -- all rows count, not only those that whoever inserts may see
            set search_path = pg_catalog, pg_temp
        as $$
        declare
            crowded text;
        begin
            if tg_relid <> '%1$I.alert_rule'::regclass then
                raise exception 'this trigger belongs to alert_rule' using errcode = 'insufficient_privilege';
            end if;
            select organisation_id into crowded from %1$I.alert_rule
                where organisation_id in (select organisation_id from new_rows)
                group by organisation_id having count(*) > 5000 limit 1;
            if crowded is not null then
                raise exception 'an organisation may have 5000 alert rules at most'
                    using errcode = 'program_limit_exceeded';
            end if;
            return null;
        end
        $$
    $create$, current_schema());

    execute format($create$
        create or replace function mimir_tenant_proxy_at_most() returns trigger
            language plpgsql
            security definer -- all rows count, not only those that whoever inserts may see
            set search_path = pg_catalog, pg_temp
        as $$
        declare
            crowded text;
        begin
            if tg_relid not in ('%1$I.notification_channel'::regclass, '%1$I.notification_route'::regclass) then
                raise exception 'this trigger belongs to notification_channel and notification_route'
                    using errcode = 'insufficient_privilege';
            end if;
            execute format('select organisation_id from %%s where organisation_id in (select organisation_id from new_rows)
                            group by organisation_id having count(*) > %%s limit 1',
                           case when tg_relid = '%1$I.notification_channel'::regclass
                               then '%1$I.notification_channel' else '%1$I.notification_route' end,
                           tg_argv[0]::integer)
                into crowded;
            if crowded is not null then
                raise exception 'an organisation may have %% %% at most', tg_argv[0], tg_argv[1]
                    using errcode = 'program_limit_exceeded';
            end if;
            return null;
        end
        $$
    $create$, current_schema());

    execute format($create$
        create or replace function mimir_tenant_proxy_forget_events() returns trigger
            language plpgsql
            security definer -- whoever deletes an organisation has no rights on its events
            set search_path = pg_catalog, pg_temp
        as $$
        begin
            if tg_relid <> '%1$I.organisation'::regclass then
                raise exception 'this trigger belongs to organisation' using errcode = 'insufficient_privilege';
            end if;
            delete from %1$I.alert_event where organisation_id = old.id;
            return null;
        end
        $$
    $create$, current_schema());

    -- These two may stand on tables of your own.
    execute format($create$
        create or replace function mimir_tenant_proxy_bury() returns trigger
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
            -- A temporary table is its user's, whatever it is named.
            if exists (select from pg_class where oid = tg_relid and relpersistence = 't') then
                raise exception 'this trigger is not for temporary tables' using errcode = 'insufficient_privilege';
            end if;
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

    execute format($create$
        create or replace function mimir_tenant_proxy_bury_notification() returns trigger
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
            -- A temporary table is its user's, whatever it is named.
            if exists (select from pg_class where oid = tg_relid and relpersistence = 't') then
                raise exception 'this trigger is not for temporary tables' using errcode = 'insufficient_privilege';
            end if;
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

    execute format($create$
        create or replace function mimir_tenant_proxy_keep_secrets() returns trigger
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
                    elsif old.secrets -> item.key = '"<secret>"' and old.kind is not distinct from new.kind then
                        -- A secret that is lost, and not by its author: another column's change does not
                        -- hide that.
                        masks := masks || jsonb_build_object(item.key, item.value);
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

do $$
declare
    ours oid;
    caller text;
begin
    for ours in
        select oid from pg_proc
        where pronamespace = current_schema()::regnamespace and prosecdef and proname like 'mimir\_tenant\_proxy\_%'
    loop
        execute format('revoke execute on function %s from public', ours::regprocedure);
        foreach caller in array array['anon', 'authenticated', 'service_role'] loop
            if exists (select from pg_roles where rolname = caller) then
                execute format('revoke execute on function %s from %I', ours::regprocedure, caller);
            end if;
        end loop;
    end loop;
end
$$;

-- What is written is read by the proxy with all that the organisation has, so a row has a size. NOT VALID:
-- larger rows from before do not make the migration fail; they can be deleted, and have to be made smaller
-- when they are changed. The proxy says of them that they are too large.
alter table alert_rule
    add constraint alert_rule_labels_size check (octet_length(labels::text) <= 65536) not valid,
    add constraint alert_rule_annotations_size check (octet_length(annotations::text) <= 65536) not valid;
alter table notification_channel
    add constraint notification_channel_name_size check (octet_length(name) <= 1024) not valid,
    add constraint notification_channel_kind_size check (octet_length(kind) <= 1024) not valid,
    add constraint notification_channel_settings_size check (octet_length(settings::text) <= 65536) not valid;
alter table notification_route
    add constraint notification_route_group_wait_size check (octet_length(group_wait) <= 1024) not valid,
    add constraint notification_route_group_interval_size check (octet_length(group_interval) <= 1024) not valid,
    add constraint notification_route_repeat_interval_size check (octet_length(repeat_interval) <= 1024) not valid,
    add constraint notification_route_matchers_size check (octet_length(matchers::text) <= 65536) not valid,
    add constraint notification_route_group_by_size check (octet_length(group_by::text) <= 65536) not valid,
    add constraint notification_route_mute_times_size check (octet_length(mute_times::text) <= 65536) not valid;
