-- A mask that a form returns with white space around it, and the events of an organisation that is renamed.
--
-- Every statement can be run again, so that `migrate --adopt` works for tables that another tool made from these files.
-- `organisation`, which every look-up reads, is locked last.

-- Before, only the exact mask kept a secret, and one with a line break after it replaced the secret. The proxy trims what
-- it reads. A text of nothing but white space removes a secret, as the empty one does.
do $do$
begin
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
            aside  jsonb := '{}';
            is_there boolean := false;
            owner  text;
            kept   jsonb := '{}';
            fresh  jsonb := '{}';
            masks  jsonb := '{}';
            item   record;
            -- What the proxy trims: white space of Unicode, and the byte order mark.
            blank  constant text := '[\t\n\v\f\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]*';
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
                select s.secrets, case when s.aside_by = pg_current_xact_id() then s.aside end into stored, aside
                    from %1$I.notification_channel_secret as s where s.channel_id = old.id for update;
                stored := coalesce(stored, '{}');
                aside := coalesce(aside, '{}');
            elsif exists (select from %1$I.notification_channel as c
                          where c.id = new.id and c.organisation_id <> new.organisation_id) then
                -- The row itself will be refused, or is left alone (on conflict do nothing).
                new.secrets := '{}';
                return new;
            else
                -- The lock keeps the row there until this statement has handled the conflict. It is the lock of an
                -- update: with a weaker one, two concurrent upserts would deadlock when they update the row.
                perform from %1$I.notification_channel as c where c.id = new.id for no key update;
                is_there := found;
            end if;
            for item in select * from jsonb_each(given) loop
                -- A key is readable: a secret that was written in its place must not be.
                if item.key !~ '^[a-z_]{1,40}$' then
                    raise exception 'a key of secrets should be a plain word, such as url'
                        using errcode = 'check_violation';
                end if;
                if item.value = '"<given>"' and aside ? item.key then
                    fresh := fresh || jsonb_build_object(item.key, aside -> item.key);
                elsif item.value #>> '{}' ~ ('^' || blank || '<secret>' || blank || '$') then
                    if tg_op = 'INSERT' then
                        -- A backup that is restored: the secrets themselves come after it.
                        masks := masks || jsonb_build_object(item.key, '<secret>'::text);
                    elsif stored ? item.key then
                        kept := kept || jsonb_build_object(item.key, stored -> item.key);
                    elsif old.secrets -> item.key = '"<secret>"' and old.kind is not distinct from new.kind then
                        -- A secret that is lost, and not by its author: another column's change does not
                        -- hide that.
                        masks := masks || jsonb_build_object(item.key, '<secret>'::text);
                    end if;
                elsif item.value #>> '{}' !~ ('^' || blank || '$') then
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
            if tg_op = 'INSERT' and kept <> '{}' and not is_there then
                insert into %1$I.notification_channel_secret (channel_id, secrets) values (new.id, kept)
                    on conflict (channel_id) do nothing;
                if not found then
                    -- Another transaction has just inserted the channel, and has ended by now.
                    select c.organisation_id into owner from %1$I.notification_channel as c where c.id = new.id
                        for no key update;
                    is_there := found;
                    if not found then
                        update %1$I.notification_channel_secret set secrets = kept where channel_id = new.id;
                    elsif owner <> new.organisation_id then
                        new.secrets := '{}';
                        return new;
                    end if;
                end if;
            end if;
            if is_there then
                -- `do nothing` must not change the row's secrets, and nor must `do update set name = …`. So the new
                -- secrets are put aside. `do update set secrets = excluded.secrets` uses them.
                insert into %1$I.notification_channel_secret (channel_id, secrets, aside, aside_by)
                    values (new.id, '{}', kept, pg_current_xact_id())
                    on conflict (channel_id) do update set aside = excluded.aside, aside_by = excluded.aside_by;
                new.secrets := masks || (select coalesce(jsonb_object_agg(key, '<given>'), '{}')
                                         from jsonb_object_keys(kept) as key);
                return new;
            end if;
            if tg_op = 'UPDATE' then
                if kept = stored then
                    null;
                elsif kept = '{}' then
                    delete from %1$I.notification_channel_secret where channel_id = old.id;
                else
                    insert into %1$I.notification_channel_secret (channel_id, secrets) values (old.id, kept)
                        on conflict (channel_id) do update set secrets = excluded.secrets;
                end if;
            end if;
            new.secrets := masks || (select coalesce(jsonb_object_agg(key, '<secret>'), '{}')
                                     from jsonb_object_keys(kept) as key);
            return new;
        end
        $$
    $create$, current_schema());

    -- Events have no foreign key that could cascade. Whoever has the old identifier later must not read them.
    execute format($create$
        create or replace function mimir_tenant_proxy_rename_events() returns trigger
            language plpgsql
            security definer -- whoever renames an organisation has no rights on its events
            set search_path = pg_catalog, pg_temp
        as $$
        begin
            if tg_relid <> '%1$I.organisation'::regclass then
                raise exception 'this trigger belongs to organisation' using errcode = 'insufficient_privilege';
            end if;
            -- Of an organisation that had the new identifier before and that is gone.
            delete from %1$I.alert_event where organisation_id = new.id;
            update %1$I.alert_event set organisation_id = new.id where organisation_id = old.id;
            update %1$I.alert_event_start set organisation_id = new.id where organisation_id = old.id;
            return null;
        end
        $$
    $create$, current_schema());
end
$do$;

do $$
declare
    caller text;
begin
    revoke execute on function mimir_tenant_proxy_rename_events() from public;
    foreach caller in array array['anon', 'authenticated', 'service_role'] loop
        if exists (select from pg_roles where rolname = caller) then
            execute format('revoke execute on function mimir_tenant_proxy_rename_events() from %I', caller);
        end if;
    end loop;
end
$$;

do $$
begin
    -- Not dropped and made again: that would lock out those who read.
    if not exists (select from pg_trigger
                   where tgrelid = 'organisation'::regclass and tgname = 'organisation_events_renamed') then
        create trigger organisation_events_renamed after update on organisation
            for each row when (old.id is distinct from new.id) execute function mimir_tenant_proxy_rename_events();
    end if;
end
$$;
