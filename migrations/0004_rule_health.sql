-- How Mimir evaluates the rules that it has. Rules were `live` as soon as Mimir had them; that is
-- `stored` now, until an evaluation was seen.

alter table alert_rule_status drop constraint if exists alert_rule_status_state_check;
alter table alert_rule_status add constraint alert_rule_status_state_check
    check (state in ('pending', 'stored', 'live', 'failing', 'invalid', 'over_limit', 'disabled', 'error'));

-- The last evaluation that is known of, by Mimir's clock; some minutes behind while nothing changes.
alter table alert_rule_status add column evaluated_at timestamptz;
-- Whether the rule's alerts reach a notification channel; null if that is not known.
alter table alert_rule_status add column notifies boolean;

-- Of the rules that Mimir has, `live` counts those that it evaluates.
alter table alert_rule_sync add column stored integer not null default 0;
alter table alert_rule_sync add column failing integer not null default 0;

-- Supabase Realtime brings changes to a page. Its row-level security is that of the table.
do $$
begin
    if exists (select from pg_publication where pubname = 'supabase_realtime' and not puballtables)
            and not exists (select from pg_publication_tables
                            where pubname = 'supabase_realtime' and schemaname = current_schema()
                                and tablename = 'alert_rule_status') then
        alter publication supabase_realtime add table alert_rule_status;
    end if;
exception when insufficient_privilege then
    raise notice 'alert_rule_status is not added to the publication supabase_realtime, whose owner is another role';
end
$$;
