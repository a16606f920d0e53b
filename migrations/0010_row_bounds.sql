-- Bounds that authors of one organisation could exceed, and an index for the bound on ended events.
--
-- The slow step comes first, and `organisation`, which every look-up reads, is locked last. Every statement can be run
-- again, so that `migrate --adopt` works for tables that another tool made from these files.

-- For the number of ended events of each organisation, and for the oldest of them.
create index if not exists alert_event_ended on alert_event (organisation_id, ended_at desc, id)
    where state = 'resolved';

-- Concurrent transactions do not see each other's rows. So an insert takes a lock and waits for other transactions that
-- insert for the same organisation. The count then sees what they have committed, except under REPEATABLE READ. All
-- organisations share 256 locks: a lock takes memory of the server until its transaction ends, and a restore inserts for
-- every organisation.
do $do$
begin
    execute format($create$
        create or replace function mimir_tenant_proxy_count() returns trigger
            language plpgsql
            security definer -- counts all rows, also those that row-level security hides from the caller
            set search_path = pg_catalog, pg_temp
        as $$
        declare
            crowded text;
        begin
            if tg_relid <> '%1$I.alert_rule'::regclass then
                raise exception 'this trigger belongs to alert_rule' using errcode = 'insufficient_privilege';
            end if;
            -- Sorted, so that two statements cannot deadlock.
            perform pg_advisory_xact_lock(tg_relid::integer, lock)
                from (select distinct hashtext(organisation_id) & 255 as lock from new_rows order by 1) as locks;
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
            security definer -- counts all rows, also those that row-level security hides from the caller
            set search_path = pg_catalog, pg_temp
        as $$
        declare
            crowded text;
        begin
            if tg_relid not in ('%1$I.notification_channel'::regclass, '%1$I.notification_route'::regclass) then
                raise exception 'this trigger belongs to notification_channel and notification_route'
                    using errcode = 'insufficient_privilege';
            end if;
            perform pg_advisory_xact_lock(tg_relid::integer, lock)
                from (select distinct hashtext(organisation_id) & 255 as lock from new_rows order by 1) as locks;
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
end
$do$;

-- Before, an insert that conflicted with a channel of the same organisation replaced its secrets, even with `do nothing`.
alter table notification_channel_secret
    add column if not exists aside jsonb, add column if not exists aside_by xid8;
create index if not exists notification_channel_secret_aside on notification_channel_secret (aside_by) where aside_by is not null;
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
                elsif item.value = '"<secret>"' then
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

    -- Secrets that were put aside and that no update used are deleted at the end of the statement.
    execute format($create$
        create or replace function mimir_tenant_proxy_forget_aside() returns trigger
            language plpgsql
            security definer -- authors have no rights on the secrets
            set search_path = pg_catalog, pg_temp
        as $$
        begin
            if tg_relid <> '%1$I.notification_channel'::regclass then
                raise exception 'this trigger belongs to notification_channel' using errcode = 'insufficient_privilege';
            end if;
            delete from %1$I.notification_channel_secret where aside_by = pg_current_xact_id() and secrets = '{}';
            update %1$I.notification_channel_secret set aside = null, aside_by = null
                where aside_by = pg_current_xact_id();
            return null;
        end
        $$
    $create$, current_schema());
end
$do$;
drop trigger if exists notification_channel_secrets_forgotten on notification_channel;
create trigger notification_channel_secrets_forgotten after insert on notification_channel
    for each statement execute function mimir_tenant_proxy_forget_aside();

do $$
declare
    caller text;
begin
    revoke execute on function mimir_tenant_proxy_forget_aside() from public;
    foreach caller in array array['anon', 'authenticated', 'service_role'] loop
        if exists (select from pg_roles where rolname = caller) then
            execute format('revoke execute on function mimir_tenant_proxy_forget_aside() from %I', caller);
        end if;
    end loop;
end
$$;

-- No sensible duration is longer than 100 bytes. A longer text costs memory and time with every read of all
-- organisations.
update organisation set device_silent_after = null where octet_length(device_silent_after) > 100;
alter table organisation drop constraint if exists organisation_device_silent_after_size;
alter table organisation add constraint organisation_device_silent_after_size
    check (octet_length(device_silent_after) <= 100);
