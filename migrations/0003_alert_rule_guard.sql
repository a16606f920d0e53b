-- The deletions of alert rules that the guard holds back, each with the rules that would vanish, and
-- which of them an administrator has confirmed. Only the proxy writes it.
--
-- A confirmation is about these rules and no others, so it is kept with them: alert_rule_sync and
-- alert_rule_leader name the deletion that waits (guard_id); their columns confirmed_* are not used
-- any more and stay for copies of an earlier version that still run.

create table alert_rule_guard (
    -- Made of the rules: the same rules have the same identifier.
    id              text not null,
    -- One row for each organisation that the deletion is about.
    organisation_id text not null,
    -- Whether it is a deletion in many organisations, confirmed for all of them together.
    overall         boolean not null,
    -- [{"key", "name", "group", "why"}]
    rules           jsonb not null default '[]',
    held_at         timestamptz not null default now(),
    confirmed_by    text not null default '',
    confirmed_at    timestamptz,
    primary key (id, organisation_id)
);
create index alert_rule_guard_organisation_id on alert_rule_guard (organisation_id);

alter table alert_rule_guard enable row level security;

do $$
declare
    api_role text;
begin
    foreach api_role in array array['anon', 'authenticated'] loop
        if exists (select from pg_roles where rolname = api_role) then
            execute format('revoke all on alert_rule_guard from %I', api_role);
        end if;
    end loop;
end
$$;

-- The hashes of other versions of a rule that Mimir has or may have, separated by spaces: a move that
-- is broken off leaves an old version behind, and with it no rule vanishes.
alter table alert_rule_status add column other_hashes text not null default '';
